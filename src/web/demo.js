// A chat room in one page: introduce yourself, then keep one read waiting. The room's name is
// the part of the address behind #, which a browser sends to nobody.

const room = decodeURIComponent(location.hash.slice(1)) || "lobby";
const names = new Map();
const $ = (id) => document.getElementById(id);
let me = null;
let cursor = { from_id: 0 };

async function call(name, parameters) {
  // Parameters travel in the body: names of channels and secrets have no place in a proxy's log.
  const answer = await fetch(name, { method: "POST", body: new URLSearchParams(parameters) });
  return answer.json();
}

const proof = () => (me ? { connection: me.connection, auth: me.auth } : {});

async function join(name) {
  const answer = await call("introduce", { channel: room, message: name });
  if (answer.error) return say("The server refused: " + answer.detail);
  me = { ...answer, name };
  $("label").textContent = name;
  say(`In the room “${room}” as ${name}.`);
}

async function follow() {
  for (let pause = 500; ; ) {
    try {
      const answer = await call("read", { channel: room, ...cursor, ...proof() });
      if (answer.error === "connection_ended") {
        await join(me.name);
        continue;
      }
      if (answer.error) throw new Error(answer.detail);
      if (answer.reset) names.clear();
      for (const message of answer.messages) show(message);
      cursor = { from_id: answer.next_id, epoch: answer.epoch };
      pause = 500;
    } catch (error) {
      say(`Away from the server: ${error.message}. Trying again.`);
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
      pause = Math.min(pause * 2, 15000);
    }
  }
}

function show({ type, time, from, message }) {
  const name = names.get(from) ?? "somebody";
  if (type === "introduction") {
    const known = names.has(from);
    names.set(from, message);
    line(time, "event", known ? `${name} is now ${message}` : `${message} is here`);
  } else if (type === "goodbye") {
    names.delete(from);
    line(time, "event", `${name} has left`);
  } else {
    line(time, "", message, name);
  }
  $("members").replaceChildren(...[...names.values()].map((member) => element("li", member)));
}

function line(time, kind, text, name) {
  const item = element("li", "");
  item.className = kind;
  const stamp = element("time", new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  item.append(stamp, ...(name ? [element("b", name), ": "] : []), text);
  const list = $("messages");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

// Text only ever becomes text, never markup.
function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function say(text) {
  $("state").textContent = text;
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  $("text").value = "";
  if (!text) return;
  try {
    if (!me) {
      await join(text);
      if (me) follow();
    } else {
      const answer = await call("write", { channel: room, message: text, ...proof() });
      if (answer.error) say("Not sent: " + answer.detail);
    }
  } catch (error) {
    say(`Not sent: ${error.message}`);
  }
});

addEventListener("pagehide", () => {
  if (me) navigator.sendBeacon("goodbye", new URLSearchParams(proof()));
});
addEventListener("hashchange", () => location.reload());
