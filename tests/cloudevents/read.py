"""Reads records from stdin, one JSON object a line, as a subscriber with the CloudEvents SDK does."""

import json
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event


def read(record):
    headers = {name: value.encode() for name, value in record["headers"].items()}
    key, value = (text and text.encode() for text in (record["key"], record["value"]))
    event = from_kafka_event(KafkaMessage(headers=headers, key=key, value=value))
    data = event.get_data()
    return {
        "specversion": event.get_specversion(),
        "id": event.get_id(),
        "source": event.get_source(),
        "type": event.get_type(),
        "time_ms": round(event.get_time().timestamp() * 1000),
        "data": data.decode() if isinstance(data, bytes) else data,
    }


for line in sys.stdin:
    try:
        answer = read(json.loads(line))
    except Exception as error:
        answer = {"refused": repr(error)}
    print(json.dumps(answer))
