// For Node 20, which has none of its own.

import { WebSocket } from "undici";

globalThis.WebSocket ??= WebSocket;
