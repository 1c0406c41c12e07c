// The client in each engine that people have, side by side: the same tests for all of them.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  roomActions,
  startServer,
  startSite,
  startTcpProxy,
  TRANSPORTS,
  until,
} from "../chromium/environment.mjs";
import { testElement } from "./element.mjs";
import { ENGINES } from "./engines.mjs";
import { putToSleep } from "./programs.mjs";

const DIRECT_PORT = 7732;
const STREAMS = TRANSPORTS.filter((transport) => transport !== "jsonp");

let site;
before(async () => (site = await startSite()));
after(() => site?.stop());

/** Returns a loopback address of the test's own, on which every port is free. */
const ownHost = () => `127.${[0, 0, 0].map(() => 1 + Math.floor(254 * Math.random())).join(".")}`;

/** Checks that texts arrived once, and those of each sender ("SENDER NUMBER") in order. */
function checkOrder(texts) {
  assert.equal(new Set(texts).size, texts.length, `nothing twice: ${texts}`);
  for (const sender of TRANSPORTS) {
    const numbers = texts
      .filter((text) => text.startsWith(`${sender} `))
      .map((text) => Number(text.split(" ")[1]));
    assert.deepEqual(
      numbers,
      numbers.toSorted((a, b) => a - b),
      "in order",
    );
  }
}

function testEngine({ launch, keepsPages }) {
  let browser;
  const idle = []; // pages that tests have released: to open one takes long
  before(async () => (browser = await launch()));
  after(() => browser?.close());

  /** Opens a page that joins a room by itself whenever it is loaded. */
  async function openRoom(endpoints, room, options, flags = "") {
    const page = idle.pop() ?? (await browser.openPage());
    const query = new URLSearchParams(endpoints.map((endpoint) => ["endpoint", endpoint]));
    query.append("early", JSON.stringify([room, { endpoint: endpoints[0], ...options }]));
    await page.goTo(`${site.address}?${query}${flags}`);
    return { ...page, page, ...roomActions(page.run, options.name) };
  }

  /** Opens a page for each transport, in one room. Its member has the name of the transport. */
  async function openRooms(endpoints, room) {
    const tabs = await all(TRANSPORTS, (transport) =>
      openRoom(endpoints, room, { name: transport, transport }),
    );
    for (const tab of tabs) {
      await tab.waitForState("connected");
      await tab.waitForMembersInAnyOrder(...TRANSPORTS.toSorted());
    }
    return tabs;
  }
  const all = (tabs, act) => Promise.all(tabs.map(act));

  /** Leaves pages to later tests, as if they were new. */
  async function release(...tabs) {
    for (const tab of tabs) {
      await tab.run(() => {
        window.chat.leave();
        sessionStorage.clear();
      });
      idle.push(tab.page);
    }
  }

  test("pages join, talk, whisper, rename, reload, close and leave", async () => {
    const server = await startServer();
    const tabs = await openRooms(server.endpoints, "talk");
    const strange = 'howdy <b>&amp;</b> "quotes" +1 %41 \u2028 ✓ 𝄞';
    const texts = TRANSPORTS.map((transport) => `${transport} says ${strange}`);
    await all(tabs, (tab, i) => tab.say(texts[i]));
    const expectAll = async (expected) => {
      for (const tab of tabs) {
        for (const text of expected) await tab.waitForText(text);
        assert.equal((await tab.texts()).length, expected.length);
      }
    };
    await expectAll(texts);
    await all(tabs, (tab) =>
      tab.run(() => {
        const { members, me } = window.chat;
        const next = members[(members.indexOf(me) + 1) % members.length];
        return window.chat.whisper(next, `psst from ${me.name}`);
      }),
    );
    for (const tab of tabs) {
      const whispers = async () => (await tab.messages()).filter(({ whisper }) => whisper).length;
      await until(async () => (await whispers()) === 2, "one whisper each way");
    }
    await all(tabs, (tab) => tab.run(() => window.chat.rename(`${window.chat.me.name} 2`)));
    const renamed = TRANSPORTS.map((transport) => `${transport} 2`);
    for (const tab of tabs) await tab.waitForMembersInAnyOrder(...renamed.toSorted());

    await all(tabs, (tab) => tab.reload());
    for (const [i, tab] of tabs.entries()) {
      await tab.waitForMembersInAnyOrder(...renamed.toSorted());
      for (const text of texts) await tab.waitForText(text);
      assert.equal((await tab.state()).transport, TRANSPORTS[i]);
    }
    const members = () => server.call("members", { channel: "talk" });
    await until(async () => (await members()).readers === 4, "all read");
    const goodbyes = (await server.messages("talk")).filter(({ type }) => type === "goodbye");
    assert.deepEqual(goodbyes, [], "no other member noticed");

    const [first, ...others] = tabs;
    await all(others, (tab) => tab.close());
    for (const name of renamed.slice(1)) {
      assert.equal((await first.waitForGoodbye(name)).reason, "closed");
    }
    await first.run(() => window.chat.leave());
    assert.deepEqual((await members()).members, []);
    await release(first);
    await server.stop();
  });

  for (const hasJournal of [false, true]) {
    const how = hasJournal ? "with" : "without";
    test(`the server is killed and restarts ${how} --journal: pages continue`, async (t) => {
      const folder = await mkdtemp(join(tmpdir(), "speak-journal-"));
      t.after(() => rm(folder, { recursive: true }));
      const options = ["--history", "1000", ...(hasJournal ? ["--journal", folder] : [])];
      let server = await startServer({ options });
      const tabs = await openRooms(server.endpoints, "restart");
      const sent = [];
      let isDone = false;
      const talks = all(tabs, async (tab, i) => {
        for (let count = 0; !isDone; count++) {
          const text = `${TRANSPORTS[i]} ${count}`;
          await tab.say(text);
          sent.push(text);
        }
      });
      await until(() => sent.length > 20, "the pages talk");
      await server.stop("SIGKILL");
      const before = sent.length;
      server = await startServer({ ports: server.ports, options });
      const later = () => sent.slice(before + tabs.length).map((text) => text.split(" ")[0]);
      await until(() => new Set(later()).size === tabs.length, "all pages talk again");
      isDone = true;
      await talks;

      for (const [i, tab] of tabs.entries()) {
        await tab.waitForText(sent.at(-1));
        await tab.waitForMembersInAnyOrder(...TRANSPORTS.toSorted());
        const texts = await tab.texts();
        checkOrder(texts);
        const lost = sent.filter((text) => !texts.includes(text));
        // Without a journal, the server may have delivered its last message to no page.
        const isEarly = (text) => sent.indexOf(text) <= before + tabs.length;
        assert.ok(hasJournal ? !lost[0] : lost.every(isEarly), `${lost} of ${sent}`);
        assert.equal((await tab.state()).transport, TRANSPORTS[i]);
      }
      const comings = await server.comings("restart");
      if (hasJournal) assert.deepEqual(comings, [1, 2, 3, 4].map((n) => `introduction ${n}`));
      await release(...tabs);
      await server.stop();
    });
  }

  test("pages whose lines are cut come back, and report what is gone", async () => {
    const server = await startServer({ options: ["--history", "20"] });
    const proxy = await startTcpProxy(server.endpoints[0]);
    const tabs = await openRooms([proxy.endpoint], "cut");
    proxy.disconnect();
    await all(tabs, (tab) => tab.waitForState("waiting"));
    for (let i = 0; i < 40; i++) await server.call("write", { channel: "cut", message: `${i}` });
    const texts = TRANSPORTS.map((transport) => `${transport} 1`);
    const pending = all(tabs, (tab, i) => tab.say(texts[i]));
    await proxy.reconnect();
    await pending;
    for (const [i, tab] of tabs.entries()) {
      for (const text of ["39", ...texts]) await tab.waitForText(text);
      await tab.waitForState("connected");
      assert.equal(await tab.run(() => window.received.missed), 1);
      checkOrder(await tab.texts());
      assert.equal((await tab.state()).transport, TRANSPORTS[i]);
    }
    await release(...tabs);
    proxy.stop();
    await server.stop();
  });

  test("pages that were offline have the messages as soon as they are online", async () => {
    const server = await startServer();
    const proxy = await startTcpProxy(server.endpoints[0]);
    const tabs = await openRooms([proxy.endpoint], "offline");
    proxy.isDead = true;
    proxy.freeze();
    await all(tabs, (tab) => browser.setOffline(tab.page, true));
    await server.call("write", { channel: "offline", message: "meanwhile" });
    proxy.isDead = false;
    await all(tabs, (tab) => browser.setOffline(tab.page, false));
    for (const [i, tab] of tabs.entries()) {
      await tab.waitForText("meanwhile");
      await tab.waitForState("connected");
      assert.equal((await tab.state()).transport, TRANSPORTS[i]);
      assert.deepEqual(await tab.texts(), ["meanwhile"]);
    }
    await release(...tabs);
    proxy.stop();
    await server.stop();
  });

  test("pages that slept longer than their members live are members again", async (t) => {
    const options = ["--heartbeat", "1s", "--connection-timeout", "1s", "--poll-timeout", "2s"];
    const server = await startServer({ options });
    const tabs = await openRooms(server.endpoints, "sleep");
    const wake = await putToSleep(browser.pid);
    t.after(wake);
    await server.call("write", { channel: "sleep", message: "while you slept" });
    // A stream of events is not answered, so the server does not know that its reader sleeps.
    const gone = async () =>
      (await server.comings("sleep")).filter((coming) => coming.startsWith("goodbye")).length;
    await until(async () => (await gone()) >= 3, "members are gone");
    wake();
    await all(tabs, async (tab, i) => {
      await tab.waitForText("while you slept");
      await tab.say(`${TRANSPORTS[i]} 1`);
    });
    for (const [i, tab] of tabs.entries()) {
      for (const transport of TRANSPORTS) await tab.waitForText(`${transport} 1`);
      await tab.waitForMembersInAnyOrder(...TRANSPORTS.toSorted());
      checkOrder(await tab.texts());
      assert.equal((await tab.state()).transport, TRANSPORTS[i]);
    }
    await release(...tabs);
    await server.stop();
  });

  test("tabs share one read and one member, and the next tab takes over", async () => {
    const server = await startServer();
    const open = () => openRoom(server.endpoints, "tabs", { name: "Ada" });
    const tabs = [];
    for (let i = 0; i < 3; i++) {
      tabs.push(await open());
      await tabs[i].waitForMembers("Ada");
    }
    const members = () => server.call("members", { channel: "tabs" });
    await until(async () => (await members()).readers === 1, "one tab reads");
    await tabs[2].say("one");
    await all(tabs, (tab) => tab.waitForText("one"));
    await tabs[0].close();
    await tabs[1].say("two");
    await all(tabs.slice(1), (tab) => tab.waitForText("two"));
    await tabs[1].reload();
    await tabs[2].say("three");
    await all(tabs.slice(1), (tab) => tab.waitForText("three"));
    await until(async () => (await members()).readers === 1, "one tab reads");
    for (const tab of tabs.slice(1)) assert.deepEqual(await tab.texts(), ["one", "two", "three"]);
    assert.deepEqual(await server.comings("tabs"), ["introduction 1"]);
    await release(...tabs.slice(1));
    await server.stop();
  });

  test("pages that are left are gone, and continue when the user goes back", async (t) => {
    const server = await startServer();
    const tabs = await openRooms(server.endpoints, "back");
    const goodbyes = async () =>
      (await server.comings("back")).filter((coming) => coming.startsWith("goodbye")).length;
    await all(tabs, async (tab) => {
      await tab.run(() => {
        addEventListener("pageshow", ({ persisted }) => (window.wasKept = persisted));
      });
      await tab.goTo(`${site.address}?endpoint=${server.endpoints[0]}`);
    });
    await until(async () => (await goodbyes()) === tabs.length, "all are gone");
    await server.call("write", { channel: "back", message: "while you were away" });
    for (const tab of tabs) await tab.goBack();
    const kept = []; // in the back-forward cache; the others were loaded again
    for (const [i, tab] of tabs.entries()) {
      // An engine may answer before it shows the page.
      await until(() => tab.run(() => !!window.chat).catch(() => {}), "the page is back");
      await tab.waitForText("while you were away");
      await tab.waitForMembersInAnyOrder(...TRANSPORTS.toSorted());
      await tab.waitForState("connected");
      assert.equal((await tab.state()).transport, TRANSPORTS[i]);
      if (await tab.run(() => window.wasKept)) kept.push(TRANSPORTS[i]);
    }
    t.diagnostic(`kept: ${kept}`);
    if (keepsPages !== undefined) assert.equal(kept.length > 0, keepsPages, `kept: ${kept}`);
    await release(...tabs);
    await server.stop();
  });

  /** Opens a page that finds out by itself if the server can be reached by port 7732. */
  const openAuto = (host, home, room, options) =>
    openRoom([home, `http://${host}:${DIRECT_PORT}/`], room, { endpoint: "auto", ...options });

  test("a server on port 7732 that is another one is not used", async () => {
    const host = ownHost();
    const server = await startServer({ host });
    const other = await startServer({ host, ports: [DIRECT_PORT] });
    const [home] = server.endpoints;
    const ada = await openAuto(host, home, "direct", { name: "Ada" });
    const probe = (key) => sessionStorage.getItem(key);
    await until(() => ada.run(probe, `speak ${other.endpoints[0]}`), "port 7732 was tried");
    await ada.say("hello");
    await ada.waitForText("hello");
    assert.equal((await ada.state()).endpoint, home);
    assert.deepEqual(await other.messages("direct"), []);
    await release(ada);
    await Promise.all([server.stop(), other.stop()]);
  });

  test("if another server takes port 7732 during a restart, pages go back to theirs", async () => {
    const host = ownHost();
    const first = await startServer({ host, ports: [0, DIRECT_PORT] });
    const [home, direct] = first.endpoints;
    const tabs = await all(STREAMS, (transport) =>
      openAuto(host, home, "moved", { name: transport, transport }),
    );
    for (const tab of tabs) {
      await until(async () => (await tab.state()).endpoint === direct, `${direct} is used`);
    }
    await first.stop();
    const other = await startServer({ host, ports: [DIRECT_PORT] });
    const second = await startServer({ host, ports: first.ports.slice(0, 1) });
    await all(tabs, (tab, i) => tab.say(`${STREAMS[i]} 1`));
    for (const tab of tabs) {
      for (const transport of STREAMS) await tab.waitForText(`${transport} 1`);
      await tab.waitForMembersInAnyOrder(...STREAMS.toSorted());
      assert.equal((await tab.state()).endpoint, home);
    }
    assert.deepEqual(await other.messages("moved"), []);
    await release(...tabs);
    await Promise.all([other.stop(), second.stop()]);
  });

  testElement(() => browser.openPage());

  test("if the page's policy forbids WebSockets or calls, other transports work", async () => {
    const server = await startServer();
    for (const [allowed, expected] of [
      ["http", "eventsource"],
      ["nothing", "jsonp"],
    ]) {
      const flags = `&connect=${allowed}`;
      const ada = await openRoom(server.endpoints, allowed, { name: "Ada" }, flags);
      const isThere = ({ state, transport }) => state === "connected" && transport === expected;
      await until(async () => isThere(await ada.state()), `${expected} is used`);
      await ada.say("hello");
      await ada.waitForText("hello");
      assert.equal((await server.comings(allowed)).length, 1, "introduced once");
      await release(ada);
    }
    await server.stop();
  });
}

describe("the client", { concurrency: true }, () => {
  for (const [name, engine] of Object.entries(ENGINES)) {
    describe(name, { concurrency: false }, () => testEngine(engine));
  }
});
