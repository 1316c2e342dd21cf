// Answers a webhook when all replicas have it: net/http and franz-go.
//
// Arguments: the address to listen on, bootstrap servers, the topic.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Bodies beyond this are refused, as ingress does.
const bodyBytesMax = 64 * 1024

func main() {
	if len(os.Args) != 4 {
		log.Fatal("arguments: address, bootstrap servers, topic")
	}
	// Idempotent unless set otherwise.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[2], ",")...),
		kgo.DefaultProduceTopic(os.Args[3]),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /v1/events/{app}", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("POST /v1/events/{app}", func(answer http.ResponseWriter, request *http.Request) {
		keep(client, answer, request)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}

// Answers when the brokers have it.
func keep(client *kgo.Client, answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, bodyBytesMax))
	if err != nil {
		http.Error(answer, "the body is too large", http.StatusRequestEntityTooLarge)
		return
	}
	form, err := url.ParseQuery(string(body))
	member := form.Get("auth[member_id]")
	if err != nil || member == "" {
		http.Error(answer, "no member_id", http.StatusBadRequest)
		return
	}
	id, err := uuid.NewV7()
	if err != nil {
		http.Error(answer, "no id", http.StatusInternalServerError)
		return
	}
	record := &kgo.Record{
		Key:     []byte(request.PathValue("app") + "/" + member),
		Value:   body,
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id.String())}},
	}
	if err := client.ProduceSync(request.Context(), record).FirstErr(); err != nil {
		http.Error(answer, "not kept", http.StatusServiceUnavailable)
		return
	}
	answer.Header().Set("content-type", "application/json")
	// A client that is gone needs no answer.
	_ = json.NewEncoder(answer).Encode(map[string]string{"id": id.String(), "kept": "kafka"})
}
