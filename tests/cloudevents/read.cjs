// Reads records from stdin, one JSON object a line, as a subscriber with the CloudEvents SDK does.
const { createInterface } = require("node:readline");
const { Kafka } = require("cloudevents");

function read({ key, value, headers }) {
  const event = Kafka.toEvent({ key, value, headers });
  event.validate();
  const { specversion, id, source, type, time, data } = event;
  return { specversion, id, source, type, time_ms: Date.parse(time), data };
}

createInterface({ input: process.stdin }).on("line", (line) => {
  let answer;
  try {
    answer = read(JSON.parse(line));
  } catch (error) {
    answer = { refused: String(error) };
  }
  console.log(JSON.stringify(answer));
});
