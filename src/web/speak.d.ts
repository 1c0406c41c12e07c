/** Joins a room and returns at once. Handlers that are set right after it miss no event. */
export function join(room: string, options?: Options): Chat;

export type Transport = "websocket" | "eventsource" | "fetch" | "jsonp";

export interface Options {
  /**
   * Name that the other members see. Without a name, the page reads the room unseen, and its
   * messages have no sender. If the name is longer than the server accepts (1 KiB by default, with
   * the 25 bytes of the inbox), onerror gets `message_too_large`.
   */
  name?: string;
  /**
   * Address of the server. Default: the address that speak.js was loaded from; with the package for
   * npm, the origin of the page. A program without a page has to name one.
   */
  server?: string;
  /**
   * Addresses of one server, the best one first. The client begins at the last one. It moves to the
   * first one at which the same server answers.
   * "auto": port 7732 of the server, if page and server use plain http; then the server's address.
   */
  endpoint?: "auto" | string | string[];
  /**
   * Transport for messages from the server. "auto": a WebSocket; if no WebSocket passes or lasts,
   * an event stream; then long polls; then script tags.
   */
  transport?: "auto" | Transport;
  /** True to accept whispers. Default: true. Has no effect without a name. */
  inbox?: boolean;
  /**
   * True to let tabs of one browser share a member and its read, if their server, room and name are
   * the same. Default: true. Has no effect in a program without a page.
   */
  share?: boolean;
  /** True to receive the retained messages on joining. Default: true. */
  history?: boolean;
  /** Leaves the room when it is aborted, as leave() does. */
  signal?: AbortSignal;
}

export interface Chat {
  /** Something was said or whispered, or a member joined, changed its name or left. */
  onmessage?: ((message: Message) => void) | null;
  /** The list of members changed. */
  onmembers?: ((members: Member[]) => void) | null;
  onstate?: ((state: State) => void) | null;
  /** Messages were lost: the server no longer retained them when the client came back. */
  onmissed?: (() => void) | null;
  /**
   * The server refused a call for good, or the transport of the options is missing, and the chat is
   * over. Examples: a bad room name, a member name that is too long.
   */
  onerror?: ((error: SpeakError) => void) | null;

  readonly room: string;
  readonly state: State;
  /** Members in the room, sorted by connection. */
  readonly members: Member[];
  /** The page's own member. Null until the member is in the room. */
  readonly me: Member | null;

  /**
   * Says something to the room. While the server cannot be reached, or is too busy (429, 503), the
   * text waits. It is then sent once, and in order. Returns at once: the page can show the text
   * with the state of its sending.
   */
  say(text: string): Sending;
  /** Says something to one member. Rejects if the whisper is not known to have arrived. */
  whisper(to: Member | number, text: string): Promise<{ id: number }>;
  rename(name: string): Promise<void>;
  /**
   * Says goodbye. Rejects the texts that wait to be sent. No event follows. Without this call, a
   * member is gone two seconds after its last tab has closed, unless that was a reload.
   */
  leave(): Promise<void>;
}

/** Text that is being sent. As a promise, it has the id of the message, or rejects. */
export interface Sending extends Promise<{ id: number }> {
  /** Text as the room will receive it. */
  readonly text: string;
  /** State, which has changed before callbacks of the promise run. */
  readonly state: "sending" | "sent" | "failed";
  /**
   * Sends a text that failed again, after all that were said before, and returns the new sending.
   * Returns this one if it has not failed.
   */
  again(): Sending;
}

export interface Message {
  /** Id in the room. A whisper has its id in the inbox. */
  id: number;
  /**
   * "introduction": a member joined, or changed its name to `name`.
   * "goodbye": a member left; `reason` says why.
   */
  type: "message" | "introduction" | "goodbye";
  /** Milliseconds since 1970. */
  time: number;
  /** Connection of the sender, verified by the server. Absent if the sender is unknown. */
  from?: number;
  /** Name of the sender, also of one that has left. */
  name?: string;
  text: string;
  reason?: "left" | "closed" | "timeout";
  /** True if the page's own member sent it. */
  own: boolean;
  whisper: boolean;
  /** Recipient of a whisper that the page's own member sent. */
  to?: Member;
}

export interface Member {
  connection: number;
  name: string;
  own: boolean;
  /** Channel for whispers to the member. Absent if the member accepts none. */
  inbox?: string;
}

export interface State {
  /**
   * "connected": messages arrive, over an open stream or by long polls.
   * "waiting": the server cannot be reached; the next attempt is in `retryIn` milliseconds.
   * "left": the chat is over.
   */
  state: "connecting" | "connected" | "waiting" | "left";
  /** Transport in use. */
  transport?: Transport;
  /** Address of the server in use. */
  endpoint?: string;
  /** Duration of the last call, in milliseconds. */
  latency?: number;
  retryIn?: number;
  error?: string;
}

/**
 * Error that the server answered with. `name` is the error's name in the protocol: "bad_channel",
 * "message_too_large", …
 */
export class SpeakError extends Error {
  detail: string;
  status: number;
}

declare const Speak: {
  join: typeof join;
  SpeakError: typeof SpeakError;
  /** Address of the server for calls of `join` that name none. */
  server: string;
};
export default Speak;

declare global {
  var Speak: typeof import("./speak.js").default;
}
