import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, DIRECT, HOME, World } from "./simulation.mjs";

const OTHER = "http://other.test/";

async function joined(world, options, page = world.page()) {
  const chat = page.join("lobby", { name: "Josh", ...options });
  await world.clock.until(connected(chat));
  return chat;
}

const kinds = (world) => new Set(world.requests.filter(({ kind }) => kind !== "image").map(({ kind }) => kind));

test("calls by fetch are plain forms, and the server is where the script came from", async () => {
  const world = new World();
  const page = world.page();
  let how;
  const { fetch } = page.globals;
  page.globals.fetch = (url, options) => fetch(url, (how = options));
  const chat = await joined(world, {}, page);
  assert.deepEqual([chat.state.transport, chat.state.door], ["fetch", HOME]);
  const { method, credentials, cache, referrerPolicy, headers, body } = how;
  assert.deepEqual([method, credentials, cache, referrerPolicy, headers], ["POST", "omit", "no-store", "no-referrer", undefined]);
  assert.ok(body instanceof URLSearchParams);
});

test("where fetch is missing, script tags do it all", async () => {
  const world = new World();
  const page = world.page({ without: ["fetch"] });
  const chat = await joined(world, {}, page);
  const { id } = await world.brings(chat.say("hello & goodbye = +1"));
  await world.clock.pass(100);
  assert.deepEqual([chat.state.transport, id, chat.texts()], ["jsonp", 2, ["hello & goodbye = +1"]]);
  assert.deepEqual(kinds(world), new Set(["jsonp"]));
});

test("where answers to fetch are withheld, script tags from then on", async () => {
  const world = new World();
  world.blocksFetch = true;
  const chat = await joined(world);
  assert.equal(chat.state.transport, "jsonp");
  assert.deepEqual(world.server.names("lobby"), ["Josh"]);
  assert.equal(world.asked("introduce").length, 1, "the trial left no ghost");
  world.blocksFetch = false;
  world.cut();
  await world.clock.pass(10_000);
  world.isUp = true;
  await world.clock.until(connected(chat));
  assert.equal(world.requests.filter(({ kind }) => kind === "fetch").length, 1);
});

test("a server that is away is no reason for script tags", async () => {
  const world = new World();
  const chat = await joined(world);
  world.cut();
  await world.clock.pass(20_000);
  world.isUp = true;
  await world.clock.until(connected(chat));
  assert.deepEqual([chat.state.transport, kinds(world)], ["fetch", new Set(["fetch"])]);
});

test("a way can be asked for", async () => {
  const world = new World();
  const chat = await joined(world, { transport: "jsonp" });
  assert.deepEqual([chat.state.transport, kinds(world)], ["jsonp", new Set(["jsonp"])]);
});

test("every script has its own name and address, and is tidied away", async () => {
  const world = new World();
  const page = world.page();
  const elements = [];
  const { append } = page.globals.document.head;
  page.globals.document.head.append = (element) => append(elements[elements.push(element) - 1]);
  const chat = await joined(world, { transport: "jsonp" }, page);
  for (let i = 0; i < 20; i++) await world.brings(chat.say(`${i}`));
  const scripts = elements.filter(({ kind }) => kind === "script");
  const values = (name) => new Set(scripts.map(({ src }) => new URL(src).searchParams.get(name)));
  assert.equal(values("callback").size, scripts.length);
  assert.equal(values("_").size, scripts.length);
  assert.ok(scripts.every(({ referrerPolicy }) => referrerPolicy === "no-referrer"));
  await world.brings(chat.leave());
  await world.clock.pass(1000);
  assert.ok(elements.every(({ isRemoved }) => isRemoved));
  assert.deepEqual(Object.keys(page.globals).filter((key) => key.startsWith("_")), []);
});

test("a script that comes after its time finds its callback, and is not heeded", async () => {
  const world = new World();
  const page = world.page();
  const chat = await joined(world, { transport: "jsonp" }, page);
  const { setTimeout: wait } = page.globals;
  // Answers to writes take eleven seconds, one longer than a call may.
  const { on_write } = world.server;
  world.server.on_write = (values, reply) => on_write.call(world.server, values, (answer) => wait(() => reply(answer), 11_000));
  const { id } = await world.brings(chat.say("slow"));
  await world.clock.pass(20_000);
  assert.deepEqual([id, chat.texts(), page.errors], [2, ["slow"], []]);
});

test("the direct door is taken where it is open", async () => {
  const world = new World();
  world.doors.set(DIRECT, "open");
  const chat = await joined(world);
  assert.equal(chat.state.door, DIRECT);
  assert.ok(world.requests.every(({ door }) => door === DIRECT));
  assert.match(world.requests[0].query.get("_"), /./);
});

test("a direct door that is closed is passed at once, and a silent one after two seconds", async () => {
  for (const [kind, least, most] of [["closed", 0, 200], ["silent", 2000, 2200]]) {
    const world = new World();
    world.doors.set(DIRECT, kind);
    const { now } = world.clock;
    const chat = await joined(world);
    const took = world.clock.now - now;
    assert.equal(chat.state.door, HOME);
    assert.ok(took >= least && took <= most, `${kind}: ${took} ms`);
  }
});

test("a page or a server with https has one door", async () => {
  const world = new World();
  const home = "https://speak.test/";
  world.doors.set(home, "open");
  const chat = await joined(world, {}, world.page({ src: `${home}speak.js`, origin: "https://page.test" }));
  assert.equal(chat.state.door, home);
  assert.equal(world.asked("image-test").length, 0);
});

test("a list of doors is tried in its order, and the last is taken untried", async () => {
  for (const [open, expected] of [[[DIRECT, OTHER, HOME], DIRECT], [[OTHER, HOME], OTHER], [[HOME], HOME]]) {
    const world = new World();
    world.doors.clear();
    for (const door of open) world.doors.set(door, "open");
    const chat = await joined(world, { door: [DIRECT, "http://other.test", HOME] });
    assert.equal(chat.state.door, expected);
    assert.ok(world.asked("image-test").every(({ door }) => door !== HOME));
  }
});

test("a door that lets pictures through and no calls is passed", async () => {
  const world = new World();
  world.doors.set(DIRECT, "open");
  world.fate = ({ door, path }) => (door === DIRECT && path !== "image-test" ? "lost" : null);
  const chat = await joined(world);
  assert.equal(chat.state.door, HOME);
});

test("doors are tried anew where reads go on failing", async () => {
  const world = new World();
  world.doors.set(DIRECT, "open");
  const chat = await joined(world);
  world.doors.set(DIRECT, "closed");
  world.cut();
  world.isUp = true;
  await world.clock.until(() => chat.state.door === HOME);
  await world.clock.until(connected(chat));
  assert.deepEqual(world.server.names("lobby"), ["Josh"]);
});

test("the server can stand in a folder, and be named", async () => {
  const world = new World();
  const page = world.page({ src: "http://speak.test:8080/chat/speak.js?v=2" });
  assert.equal(page.globals.Speak.server, "http://speak.test:8080/chat/");
  world.doors.set(OTHER, "open");
  const chat = await joined(world, { server: "http://other.test" }, page);
  assert.equal(chat.state.door, OTHER);
  assert.deepEqual(world.asked("image-test").map(({ door }) => door), ["http://other.test:7732/"]);
});
