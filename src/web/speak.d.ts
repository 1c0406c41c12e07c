/**
 * Joins a room and returns at once. Handlers that are set right after it miss no event. `room` is
 * the name of a channel, or any name of `create`:
 * - "~o…", "~c…" of a room: the owner, and everybody else.
 * - "~b…" of a feed, "~r…" of an inbox: reads, without a member's name. `say` is `not_writable`.
 * - "~f…" of a feed, "~w…" of an inbox: writes. No event of the channel follows, and `say` rejects
 *   if the text is not known to have arrived.
 */
export function join(room: string, options?: Options): Chat;

/**
 * Makes the two names of an inbox, a feed or a room: a secret that the owner keeps, and one to give
 * away. The server stores nothing. Rejects if the server cannot be reached, or refuses.
 */
export function create(kind?: "inbox", options?: CreateOptions): Promise<InboxNames>;
export function create(kind: "feed", options?: CreateOptions): Promise<FeedNames>;
export function create(kind: "room", options?: CreateOptions): Promise<RoomNames>;

/** `server` as in the options of `join`. The call rejects when `signal` is aborted. */
export type CreateOptions = Pick<Options, "server" | "signal">;
/** `read` is the secret. */
export type InboxNames = { read: string; write: string };
/** `write` is the secret. */
export type FeedNames = { write: string; read: string };
/** `owner` is the secret. */
export type RoomNames = { owner: string; channel: string };

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
  /**
   * Secret name of the room or feed, to write and moderate with. `join` then reads under the name
   * that is given away, so that the address of an event stream does not have the secret. Default:
   * the name that is joined.
   */
  owner?: string;
  /** True to accept whispers. Default: true. Has no effect without a name. */
  inbox?: boolean;
  /**
   * True to let tabs of one browser share a member and its read, if their server, room and name are
   * the same. Default: true. Has no effect in a program without a page.
   */
  share?: boolean;
  /** True to receive the retained messages on joining. Default: true. */
  history?: boolean;
  /** Leaves the room when it is aborted, as leave() does: what waits to be sent rejects. */
  signal?: AbortSignal;
}

export interface Chat {
  /** Something was said or whispered, or a member joined, changed its name or left. */
  onmessage?: ((message: Message) => void) | null;
  /**
   * A message was removed: take it away, if the page shows it. It may be a message that this page
   * never got, or an introduction, which had a name.
   */
  onremoval?: ((removal: Removal) => void) | null;
  /** The list of members changed. */
  onmembers?: ((members: Member[]) => void) | null;
  onstate?: ((state: State) => void) | null;
  /** Messages were lost: the server no longer retained them when the client came back. */
  onmissed?: (() => void) | null;
  /**
   * The server refused a call for good, or the transport of the options is missing, and the chat is
   * over. Examples: a bad room name, a member name that is too long. `removed`: the owner of the
   * room sent the page's own member, or its address, away; `detail` has the message, if any.
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
   * Removes a message, or a member's introduction with its name, for everybody. Rejects with
   * `not_owner` if the chat's name does not own the channel: "~o…", "~f…" and "~r…" do.
   */
  remove(message: Message | Member | number): Promise<{ id: number }>;
  /**
   * Sends a member away from a room that one owns. For so many seconds (86,400 at most), only the
   * owner can come in or write from its address. Without `seconds`, it may come back at once.
   * `message` is for the member, and everybody sees it. Rejects with `not_owner` without "~o…".
   */
  kick(member: Member | number, options?: { seconds?: number; message?: string }): Promise<void>;
  /**
   * Pages back: resolves with up to `count` (50) messages before the oldest one that the page has
   * got, from an event or from here. Waits for the chat to connect, and for texts that were said
   * before. No event follows, and the chat stays where it is. With `history: true`, the page gets
   * everything that is retained anyway.
   */
  history(count?: number): Promise<History>;
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
   * "goodbye": a member left; `reason` says why. "removed": the owner sent it away.
   * "removed": a message that was removed before this page got it. It has no text.
   */
  type: "message" | "introduction" | "goodbye" | "removed";
  /** Milliseconds since 1970. */
  time: number;
  /** Connection of the sender, verified by the server. Absent if the sender is unknown. */
  from?: number;
  /** Name of the sender, also of one that has left. */
  name?: string;
  /** True if the owner of the room sent it: under the room's "~o…" name. */
  owner?: boolean;
  /** Empty if the message was removed. */
  text: string;
  /** True if the type is "removed". */
  removed: boolean;
  reason?: "left" | "closed" | "timeout" | "removed";
  /** True if the page's own member sent it. */
  own: boolean;
  whisper: boolean;
  /** Recipient of a whisper that the page's own member sent. */
  to?: Member;
}

export interface History {
  /**
   * Oldest first. Whispers are not among them, and they may be fewer than `count`: removals count
   * too. A name is the newest one of the sender that the page has heard of.
   */
  messages: Message[];
  /** False if the server retains none before these. */
  more: boolean;
}

export interface Removal {
  /** Id of the message that was removed. */
  of: number;
  /** Milliseconds since 1970. */
  time: number;
}

export interface Member {
  connection: number;
  /** Id of its introduction. */
  id: number;
  name: string;
  own: boolean;
  /** True if the member came under the room's "~o…" name. */
  owner?: boolean;
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
  create: typeof create;
  SpeakError: typeof SpeakError;
  /** Address of the server for calls of `join` and `create` that name none. */
  server: string;
};
export default Speak;

declare global {
  var Speak: typeof import("./speak.js").default;
}
