import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.core.CloudEventUtils;
import io.cloudevents.jackson.PojoCloudEventDataMapper;
import io.cloudevents.kafka.KafkaMessageFactory;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.header.internals.RecordHeaders;

/** Reads records from stdin, one JSON object a line, as a subscriber with the CloudEvents SDK does. */
class Read {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (var line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode answer;
            try {
                answer = read(JSON.readTree(line));
            } catch (Exception error) {
                answer = JSON.createObjectNode().put("refused", error.toString());
            }
            out.println(answer);
        }
        out.flush();
    }

    private static JsonNode read(JsonNode line) {
        var headers = new RecordHeaders();
        line.get("headers").fields().forEachRemaining(header -> headers.add(header.getKey(), bytes(header.getValue())));
        var event = KafkaMessageFactory.createReader(headers, bytes(line.get("value"))).toEvent();
        var answer = JSON.createObjectNode()
                .put("specversion", event.getSpecVersion().toString())
                .put("id", event.getId())
                .put("source", event.getSource().toString())
                .put("type", event.getType())
                .put("time_ms", event.getTime().toInstant().toEpochMilli());
        if (event.getDataContentType() != null && event.getDataContentType().startsWith("application/json")) {
            var data = CloudEventUtils.mapData(event, PojoCloudEventDataMapper.from(JSON, JsonNode.class));
            return answer.set("data", data.getValue());
        }
        return answer.put("data", new String(event.getData().toBytes(), StandardCharsets.UTF_8));
    }

    private static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : text.textValue().getBytes(StandardCharsets.UTF_8);
    }
}
