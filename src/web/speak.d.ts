/** Joins a room. It returns at once; handlers set right after it miss nothing. */
export function join(room: string, options?: Options): Chat;

export type Transport = "websocket" | "eventsource" | "fetch" | "jsonp";

export interface Options {
  /** What the others see. Without a name one reads along, unseen, and speaks without a sender. */
  name?: string;
  /** The server's address. Default: where speak.js was loaded from. */
  server?: string;
  /** Addresses to try in order; the last is taken untried. "auto": port 7732 of a plain http server, then the server. */
  door?: "auto" | string | string[];
  /**
   * How to hear from the server. "auto": by a WebSocket; where none passes by an event stream, by long polls, by script
   * tags.
   */
  transport?: "auto" | Transport;
  /** Whether whispers are taken. Default: true, where there is a name. */
  inbox?: boolean;
  /** Whether tabs of one browser with the same server, room and name are one member, with one read. Default: true. */
  share?: boolean;
  /** Whether retained messages are told on joining. Default: true. */
  history?: boolean;
}

export interface Chat {
  /** A message was said, or whispered, or somebody came or went. */
  onmessage?: ((message: Message) => void) | null;
  /** The list of members changed. */
  onmembers?: ((members: Member[]) => void) | null;
  onstate?: ((state: State) => void) | null;
  /** Messages were lost: the server retained them no longer when this client came back. */
  onmissed?: (() => void) | null;
  /** The server refused, and the chat is over: a bad name of a room, a name that is too long, … */
  onerror?: ((error: SpeakError) => void) | null;

  readonly room: string;
  readonly state: State;
  /** Who is here, by connection. */
  readonly members: Member[];
  /** One's own member, once one has come in. */
  readonly me: Member | null;

  /** Says something. What is said while the server is away is sent when it is back, in order, and once. */
  say(text: string): Promise<{ id: number }>;
  /** Says something to one member alone. Rejects when it is not known to have arrived. */
  whisper(to: Member | number, text: string): Promise<{ id: number }>;
  rename(name: string): Promise<void>;
  /** Says goodbye. What waits to be sent is rejected; nothing comes after it. */
  leave(): Promise<void>;
}

export interface Message {
  /** Its place in the room; that of a whisper is its place in the inbox. */
  id: number;
  /** "introduction": somebody came, or changed their name to `name`. "goodbye": they went, for this `reason`. */
  type: "message" | "introduction" | "goodbye";
  /** Milliseconds since 1970. */
  time: number;
  /** The sender's connection, where the sender is known. It is proved by the server. */
  from?: number;
  /** The sender's name, also of one who left. */
  name?: string;
  text: string;
  reason?: "left" | "closed" | "timeout";
  /** Whether one said it oneself. */
  own: boolean;
  whisper: boolean;
  /** To whom one whispered it oneself. */
  to?: Member;
}

export interface Member {
  connection: number;
  name: string;
  own: boolean;
  /** Where to whisper to; nothing where they take no whispers. */
  inbox?: string;
}

export interface State {
  /** "waiting": the server is away, and is tried again in `retryIn` milliseconds. "left": the chat is over. */
  state: "connecting" | "connected" | "waiting" | "left";
  /** By which way it is connected, and to which of the server's addresses. */
  transport?: Transport;
  door?: string;
  /** Milliseconds that the last call took. */
  latency?: number;
  retryIn?: number;
  error?: string;
}

/** What the server refused. Its name is the protocol's: "bad_channel", "message_too_large", … */
export class SpeakError extends Error {
  detail: string;
  status: number;
}

declare const Speak: {
  join: typeof join;
  SpeakError: typeof SpeakError;
  /** The server of those who name none. */
  server: string;
};
export default Speak;

declare global {
  var Speak: typeof import("./speak.js").default;
}
