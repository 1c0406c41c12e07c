// Opens a WebSocket: each frame is an answer.

/**
 * Opens a socket with an address that says nothing. The read follows in a frame, and binds the
 * connection: so no secret stands in the address, which proxies log and browsers show.
 *
 * @type {import("./stream_reader.js").Open}
 */
export function openWebSocket(endpoint, receive, values) {
  // If a proxy turns the stream into a plain read, the server answers the read at once.
  const socket = new WebSocket(`${endpoint.replace("http", "ws")}read?channel=?&timeout=0`);
  let isBound = false; // frames before the answer of the read are about the channel of the address
  // In quotes, a property keeps its name in the bundle.
  const frame = { ref: 0, "call": "read", ...values };
  socket.addEventListener("open", () => socket.send(JSON.stringify(frame)));
  socket.onmessage = ({ data }) => {
    const answer = JSON.parse(data);
    isBound ||= answer.ref === 0;
    if (answer.error) socket.close();
    else if (isBound) receive(answer);
  };
  return socket;
}
