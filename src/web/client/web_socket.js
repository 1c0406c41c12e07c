// Opens a WebSocket: each frame is an answer.

/** @type {import("./stream_reader.js").Open} */
export function openWebSocket(url, receive) {
  const socket = new WebSocket(url.replace("http", "ws"));
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  return socket;
}
