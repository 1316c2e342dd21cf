import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The fold as a team would write it on Kafka Streams: one JSON record for each installation in RocksDB, exactly once.
 *
 * <p>It believes the first principal that installs an app. Unlike the processor it keeps no second principal, no held
 * events, and no ids of recent events, and the order of the log is its only order.
 */
public final class Peer {
    private static final String STORE = "state";
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Arguments: bootstrap servers, prefix of the topics, directory of the state, threads. */
    public static void main(String[] arguments) {
        String prefix = arguments[1];
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "kafka-streams");
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[3]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);

        Topology topology = new Topology();
        topology.addSource("raw", prefix + "raw");
        topology.addProcessor("fold", Fold::new, "raw");
        var store = Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(STORE), Serdes.String(), Serdes.ByteArray());
        topology.addStateStore(store.withCachingEnabled(), "fold");
        topology.addSink("installations", prefix + "peer-installations", "fold");
        topology.addSink("events", prefix + "peer-events", "fold");

        KafkaStreams streams = new KafkaStreams(topology, settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static final class Fold implements Processor<String, byte[], String, byte[]> {
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> store;

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            this.store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, byte[]> raw) {
            Map<String, String> form = parse(new String(raw.value(), StandardCharsets.UTF_8));
            String event = form.getOrDefault("event", "").toUpperCase();
            String token = form.get("auth[application_token]");
            if (raw.key() == null || token == null) {
                return;
            }
            ObjectNode installation = read(store.get(raw.key()));
            boolean installs = event.equals("ONAPPINSTALL") && !installation.has("token");
            String fingerprint = fingerprint(token);
            if (!installs && !installation.path("token").asText().equals(fingerprint)) {
                return;
            }
            if (fold(installation, event, form)) {
                installation.put("token", fingerprint);
                installation.put("last_event", event);
                byte[] value = write(installation);
                store.put(raw.key(), value);
                context.forward(raw.withValue(value), "installations");
            }
            context.forward(raw.withValue(write(redacted(form))), "events");
        }
    }

    /** Whether the event says something about the installation. */
    private static boolean fold(ObjectNode installation, String event, Map<String, String> form) {
        switch (event) {
            case "ONAPPINSTALL", "ONAPPUPDATE" -> {
                installation.put("status", "installed");
                installation.put("version", form.get("data[VERSION]"));
            }
            case "ONAPPUNINSTALL" -> installation.put("status", "uninstalled");
            case "ONAPPMETHODCONFIRM" -> {
                boolean allowed = "1".equals(form.get("data[CONFIRMED]"));
                installation.withObject("/methods").put(form.getOrDefault("data[METHOD]", ""), allowed);
            }
            default -> {
                return false;
            }
        }
        installation.put("domain", form.get("auth[domain]"));
        return true;
    }

    /** What subscribers may see: no tokens. */
    private static ObjectNode redacted(Map<String, String> form) {
        ObjectNode event = JSON.createObjectNode();
        form.forEach((name, value) -> {
            if (!name.toLowerCase().contains("token")) {
                event.put(name, value);
            }
        });
        return event;
    }

    private static Map<String, String> parse(String body) {
        Map<String, String> form = new LinkedHashMap<>();
        for (String field : body.split("&")) {
            int middle = field.indexOf('=');
            if (middle > 0) {
                form.put(decode(field.substring(0, middle)), decode(field.substring(middle + 1)));
            }
        }
        return form;
    }

    private static String decode(String text) {
        try {
            return URLDecoder.decode(text, StandardCharsets.UTF_8);
        } catch (IllegalArgumentException malformed) {
            return text;
        }
    }

    private static String fingerprint(String token) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(token.getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(hash);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static ObjectNode read(byte[] json) {
        try {
            return json == null ? JSON.createObjectNode() : (ObjectNode) JSON.readTree(json);
        } catch (java.io.IOException corrupt) {
            throw new IllegalStateException(corrupt);
        }
    }

    private static byte[] write(ObjectNode json) {
        try {
            return JSON.writeValueAsBytes(json);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
