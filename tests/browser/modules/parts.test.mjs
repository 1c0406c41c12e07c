// Modules of the client that are pure, each alone.

import assert from "node:assert/strict";
import { test } from "node:test";
import { advance, position, restart } from "../../../src/web/client/cursors.js";
import { chooseEndpoints } from "../../../src/web/client/endpoints.js";
import { answerOf } from "../../../src/web/client/event_stream.js";
import { addMember, listMembers } from "../../../src/web/client/members.js";
import { checked, isTransient, parts, SpeakError } from "../../../src/web/client/protocol.js";
import {
  forgetConnection,
  introduction,
  isIn,
  readValues,
} from "../../../src/web/client/session.js";
import { baseUrl, form, oneLine } from "../../../src/web/client/values.js";
import { createPause } from "../../../src/web/client/waiting.js";

const newCursors = () => ({ epoch: "e", cursor: [0, 0], emitted: [0, 0] });

test("a cursor moves to where the next read begins", () => {
  const cursors = newCursors();
  assert.equal(position(cursors), "e 0,0");
  advance(cursors, 0, { messages: [], next_id: 8 });
  advance(cursors, 1, { messages: [], next_id: 3 });
  assert.equal(position(cursors), "e 8,3");
  assert.deepEqual(cursors.emitted, [8, 3]);
});

test("after a loss, a cursor goes back to 0, and remembers what was emitted", () => {
  const cursors = newCursors();
  advance(cursors, 0, { messages: [], next_id: 8, missed: true });
  assert.deepEqual(cursors, { epoch: "e", cursor: [0, 0], emitted: [8, 0] });
  advance(cursors, 0, { messages: [], next_id: 8 });
  assert.deepEqual([cursors.cursor[0], cursors.emitted[0]], [8, 8]);
});

test("after a reset, a cursor goes back to 0, and ids that were emitted are new again", () => {
  const cursors = newCursors();
  advance(cursors, 0, { messages: [], next_id: 8 });
  advance(cursors, 1, { messages: [], next_id: 3 });
  restart(cursors, 0);
  assert.deepEqual(cursors, { epoch: "e", cursor: [0, 3], emitted: [0, 3] });
});

test("an event is an answer with its message, and the cursors of all channels", () => {
  const message = { id: 7, type: "message", time: 1, message: "howdy" };
  const only = { data: JSON.stringify(message), lastEventId: "k3:8" };
  assert.deepEqual(answerOf(["lobby"], only), {
    epoch: "k3",
    channels: [{ messages: [message], next_id: 8 }],
  });
  const data = JSON.stringify({ channel: "~r1", ...message });
  assert.deepEqual(answerOf(["lobby", "~r1"], { data, lastEventId: "k3:20,8" }), {
    epoch: "k3",
    channels: [
      { messages: [], next_id: 20 },
      { messages: [message], next_id: 8 },
    ],
  });
});

test("the client begins at the ordinary address, and moves to port 7732", () => {
  const cases = [
    ["http://speak.test:8080/", "http://speak.test:8080/", ["http://speak.test:7732/"]],
    ["http://[::1]/chat/", "http://[::1]/chat/", ["http://[::1]:7732/"]],
    ["https://speak.test/", "https://speak.test/", ["https://speak.test:7732/"]],
  ];
  for (const [server, first, better] of cases)
    assert.deepEqual(chooseEndpoints(server, "auto"), { endpoints: [first], better });
});

test("of a list of endpoints, the client begins at the last and moves to the first", () => {
  const [a, b, c] = ["http://a/", "http://b/", "http://c/x/"];
  assert.deepEqual(chooseEndpoints("http://z/", ["http://a", "http://b///", "http://c/x"]), {
    endpoints: [c, b, a],
    better: [a, b],
  });
  assert.deepEqual(chooseEndpoints("http://z/", "http://a"), { endpoints: [a], better: [] });
});

test("a name is one line, an address ends with one slash, and a list is several fields", () => {
  assert.equal(oneLine("  Josh\nHill\t"), "Josh Hill");
  assert.equal(oneLine(undefined), "");
  assert.equal(baseUrl("http://a//"), "http://a/");
  const values = { channel: ["a b", "c"], epoch: undefined, auth: null, timeout: 0 };
  assert.equal(`${form(values)}`, "channel=a+b&channel=c&timeout=0");
});

test("only a pair is an inbox, and members are sorted by connection", () => {
  const list = { names: new Map(), members: new Map() };
  assert.equal(addMember(list, { id: 4, from: 2, message: "Josh\n~w22" }, true), "Josh");
  assert.equal(addMember(list, { id: 5, from: 1, message: "Ada\nlobby" }, false), "Ada");
  assert.equal(addMember(list, { id: 6, from: 3, message: "Eve", owner: true }, false), "Eve");
  assert.deepEqual(
    listMembers(list).map(({ name, own, inbox }) => [name, own, inbox]),
    [
      ["Ada", false, undefined],
      ["Josh", true, "~w22"],
      ["Eve", false, undefined],
    ],
  );
});

test("calls carry the inbox and the connection of the member that has them", () => {
  const pair = { read: "~r1", write: "~w1" };
  const me = { connection: 3, auth: "secret" };
  const reading = { cursor: [5, 2], epoch: "e" };
  const names = { room: "lobby", owner: "~o1", name: "Josh" };
  const member = { ...names, hasInbox: true, pair, me, ...reading };
  assert.deepEqual(introduction(member, "J."), { channel: "~o1", message: "J.\n~w1", ...me });
  assert.deepEqual(readValues(member, 25), {
    channel: ["lobby", "~r1"],
    from_id: [5, 2],
    epoch: "e",
    timeout: 25,
    grace: 2,
    ...me,
  });
  const reader = { room: "lobby", name: "", hasInbox: false, pair, ...reading, cursor: [5] };
  assert.deepEqual(readValues(reader, 0).channel, ["lobby"]);
  assert.ok(isIn(reader) && isIn(member) && !isIn({ ...member, me: null }));
});

test("a connection is forgotten if the call that failed was made with it", () => {
  const me = { connection: 3, auth: "secret" };
  for (const name of ["connection_ended", "bad_auth"]) {
    const session = { me };
    assert.equal(forgetConnection(session, { name }, me), true);
    assert.equal(session.me, null);
    const renewed = { me: { ...me } };
    assert.equal(forgetConnection(renewed, { name }, me), true);
    assert.ok(renewed.me, "the call was made before");
  }
  assert.equal(forgetConnection({ me }, { name: "TypeError" }, me), false);
});

test("an error of the server is thrown with its name, and one of unknown outcome has no status", () => {
  const answer = { error: "bad_channel", detail: "too long", status: 400, retryAfter: null };
  const isError = (error) =>
    error instanceof SpeakError && error.name === "bad_channel" && error.message === "too long";
  assert.throws(() => checked(answer), isError);
  const unknown = { error: "outcome_unknown", detail: "…", status: 503 };
  assert.throws(
    () => checked(unknown),
    ({ status }) => status === 0,
  );
  const read = { messages: [], next_id: 1, epoch: "e" };
  assert.equal(checked(read), read);
  assert.deepEqual(parts(read), [read]);
  const transient = [408, 429, 500, 503].map((status) => isTransient({ status }));
  assert.deepEqual(transient, [true, true, true, true]);
  for (const status of [undefined, 0, 400, 403, 410, 415]) assert.ok(!isTransient({ status }));
});

test("a pause ends when its time is over, and when something ends it", async () => {
  const pause = createPause();
  pause.end(); // nothing waits
  await pause.wait(1);
  const wait = pause.wait(1_000_000);
  pause.end();
  await wait;
});
