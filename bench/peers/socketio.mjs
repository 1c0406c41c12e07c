// Rooms with Socket.IO, as its documentation does them: `join`, and `to(room).emit`. Both are
// acknowledged. Tuned as its pages "Performance tuning" and "Memory usage" say: bufferutil, and the
// first HTTP request is discarded. Clients use WebSockets from the start.
import { Server } from 'socket.io';
import { listen, server } from './server.mjs';

const io = new Server(server, { transports: ['websocket'], serveClient: false });

io.engine.on('connection', (socket) => {
  socket.request = null;
});

io.on('connection', (socket) => {
  socket.on('join', (room, acknowledge) => {
    socket.join(room);
    acknowledge();
  });
  socket.on('message', (room, text, acknowledge) => {
    io.to(room).emit('message', text);
    acknowledge();
  });
});

listen();
