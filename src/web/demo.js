// The demo: a chat room in one page, on top of speak.js. Whatever somebody wrote only ever becomes text, never markup.
// The room's name is the part of the address behind #, which a browser sends to nobody.

/* global Speak */
const MOST_ROWS = 400; // older ones make room
const TOGETHER = 120_000; // so long (ms) one person's messages stand under one heading

const $ = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });

let chat; // the room that we are in; only looked into as long as we have no name
let room;
let partner = null; // to whom we write privately; null: we write to everybody
let unread = 0; // came while the page was hidden
let unseen = 0; // came below what is scrolled to
let newest; // what the log has come to
let last; // of the last row: whose it is, its heading's time, its day
let countdown;
const names = new Map(); // by connection, to tell a change of name from somebody who came
const drafts = new Map(); // by partner, so that nothing private slips out to everybody

const memory = {
  get name() {
    try { return localStorage.getItem("speak-name") ?? ""; } catch { return ""; } // storage may be forbidden
  },
  set name(name) {
    try { localStorage.setItem("speak-name", name); } catch { /* forgotten with the page */ }
  },
};

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- Coming and going ---

function visit() {
  let asked = location.hash.slice(1);
  try { asked = decodeURIComponent(asked); } catch { /* a stray %: then it is the name as it stands */ }
  if (room === (asked ||= "lobby")) return;
  room = asked;
  newest = { id: 0, time: 0 };
  last = {};
  unread = unseen = 0;
  names.clear();
  turn(null);
  drafts.clear();
  $("text").value = "";
  $("messages").replaceChildren();
  $("outbox").replaceChildren();
  $("newer").hidden = true;
  $("room-name").textContent = room;
  title();
  join(memory.name);
}

function join(name) {
  if (chat) {
    chat.onmessage = chat.onmembers = chat.onstate = chat.onmissed = chat.onerror = null;
    chat.leave().catch(() => {}); // who cannot say goodbye is missed soon enough
  }
  turn(null);
  members([]);
  notice("");
  $("log").ariaLive = "off"; // what was said before we came is not read aloud
  $("enter").hidden = Boolean(name);
  $("compose").hidden = !name;
  chat = Speak.join(room, name ? { name } : {});
  chat.onmessage = show;
  chat.onmembers = members;
  chat.onstate = state;
  chat.onmissed = () => happened(Date.now(), "Some messages are lost");
  chat.onerror = (error) => notice(reason(error));
  // A keyboard that slides up unasked would cover the room.
  if (matchMedia("(pointer: fine)").matches) $(name ? "text" : "name").focus();
}

function reason({ detail, message }) {
  return detail ? `The server says: ${detail}.` : `${message}.`;
}

// --- What came ---

function show(m) {
  if (!m.whisper) {
    if (m.id <= newest.id) {
      if (m.time <= newest.time) return; // shown already, when we had no name yet
      names.clear(); // the server began anew, and so did its numbers
    }
    newest = m;
  }
  if (m.type === "introduction") {
    const before = names.get(m.from);
    names.set(m.from, m.name);
    if (before === undefined) happened(m.time, person(m), " came in");
    else if (before !== m.name) happened(m.time, person({ name: before }), " is now ", person(m));
  } else if (m.type === "goodbye") {
    names.delete(m.from);
    happened(m.time, person(m), m.reason === "timeout" ? " lost the connection" : " left", m.text && `: ${m.text}`);
  } else {
    said(m);
  }
}

function said(m) {
  if (m.own) settle(m);
  day(m.time);
  const whose = [m.from, m.own, m.whisper, m.to?.connection].join();
  const isMore = whose === last.whose && m.time - last.time < TOGETHER;
  if (!isMore) Object.assign(last, { whose, time: m.time });
  append(message(m, isMore));
  if (m.own) return;
  if (document.hidden) unread += 1;
  title();
  if (isAtEnd()) return;
  unseen += 1;
  $("newer").textContent = `↓ ${unseen} new`;
  $("newer").hidden = false;
}

function happened(time, ...what) {
  day(time);
  const row = $("messages").lastElementChild;
  if (row.className === "events") row.append(" ", make("span", {}, ...what));
  else append(make("li", { className: "events" }, stamp(time), make("span", {}, ...what)));
  last.whose = null;
}

function day(time) {
  const day = calendar.format(time);
  if (day === last.day) return;
  last = { day };
  append(make("li", { className: "day" }, day));
}

function append(row) {
  const rows = $("messages");
  rows.append(row);
  if (rows.childElementCount > MOST_ROWS) rows.firstElementChild.remove();
}

function message(m, isMore) {
  const row = make("li", { className: "said" });
  for (const [kind, is] of Object.entries({ own: m.own, private: m.whisper, more: isMore })) row.classList.toggle(kind, Boolean(is));
  // Where messages of one person stand together, all headings but the first are for screen readers alone.
  const heading = make("p", { className: "by" }, m.own ? "" : face(m.name), make("b", { className: "name" }, m.own ? "You" : person(m)));
  heading.dataset.from = m.from ?? "";
  if (m.whisper) heading.append(make("span", { className: "seal" }, "privately", ...(m.to ? [" to ", person(m.to)] : [])));
  if (m.time) heading.append(stamp(m.time));
  row.append(heading, make("p", { className: "text", dir: "auto" }, ...linked(m.text)));
  return row;
}

// Other clients may give themselves no name, or one of blanks.
function called(name) {
  return name?.trim() || "Somebody";
}

function person({ name }) {
  return make("bdi", {}, called(name));
}

// The first letter of a name, in the name's own colour.
function face(name) {
  const signs = name?.trim() ? [...name.trim()] : ["?"];
  const element = make("span", { className: "face", ariaHidden: "true" }, signs[0].toUpperCase());
  element.style.setProperty("--hue", signs.reduce((sum, sign) => (sum * 67 + sign.codePointAt(0)) % 3607, 0) % 360);
  return element;
}

function stamp(time) {
  const date = new Date(time);
  return make("time", { dateTime: date.toISOString(), title: date.toLocaleString() }, clock.format(date));
}

// What is plainly an address of the web becomes a link; all else stays text.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/i).map((part, i) =>
    i % 2 && URL.canParse(part) ? make("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part);
}

function title() {
  document.title = `${unread ? `(${unread}) ` : ""}${room} · Speak`;
}

// --- Who is here ---

function members(list) {
  const rows = $("members");
  const old = new Map([...rows.children].map((row) => [row.dataset.connection, row]));
  [...list].sort((a, b) => b.own - a.own).forEach((member, place) => {
    const key = String(member.connection);
    const row = old.get(key) ?? make("li", {}, make("button"));
    const button = row.firstChild;
    old.delete(key);
    row.dataset.connection = key;
    button.replaceChildren(face(member.name), make("span", { className: "name" }, person(member)), member.own ? make("small", {}, "you") : "");
    button.disabled = !member.own && !(member.inbox && chat.me);
    button.title = member.own ? "Change your name, or leave" : button.disabled ? "" : `Write to ${called(member.name)} alone`;
    // Only what has to move is moved, so that the focus stays where it is.
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] ?? null);
  });
  for (const row of old.values()) row.remove();
  $("here").textContent = list.length ? `${list.length} here` : "Nobody here yet";
  turn(partner && (find(partner, list) ?? { ...partner, isGone: true }));
}

// After a restart of the server a number may be somebody else's. An inbox stays whose it is.
function find({ inbox }, list = chat.members) {
  return list.find((member) => member.inbox === inbox);
}

function choose(connection) {
  const member = chat.members.find((member) => member.connection === Number(connection));
  if (member?.own) {
    $("rename").value = member.name;
    $("self-dialog").showModal();
    $("rename").select();
  } else if (member?.inbox && chat.me) {
    turn(member);
    $("text").focus();
  }
}

// --- Writing ---

// Turns to one person, or with null to everybody.
function turn(to) {
  const text = $("text");
  if (to?.inbox !== partner?.inbox) {
    drafts.set(partner?.inbox, text.value);
    text.value = drafts.get(to?.inbox) ?? "";
  }
  partner = to;
  text.placeholder = to ? "Private message" : "Write to everybody";
  text.ariaLabel = to ? `Private message to ${called(to.name)}` : `Message to everybody in ${room}`;
  $("private").hidden = !to;
  $("compose").classList.toggle("private", Boolean(to));
  $("private-note").replaceChildren(...(to ? [person(to), to.isGone ? " has left, and gets nothing any more." : " alone will see this."] : []));
  for (const row of $("members").children) row.firstChild.ariaPressed = row.dataset.connection === String(to?.connection);
  grow();
}

function grow() {
  const { style } = $("text");
  style.height = "auto";
  style.height = `${$("text").scrollHeight + 2}px`;
}

// A message stands below the others until it comes back from the server, or with the reason why it was refused.
function send(text, to) {
  const row = message({ own: true, whisper: Boolean(to), to, text });
  const note = make("p", { className: "note" });
  row.append(note);
  $("outbox").append(row);
  $("scroller").scrollTop = 0;
  const attempt = async () => {
    if (!to) row.dataset.text = text;
    row.classList.remove("failed");
    note.textContent = "Sending …";
    try {
      if (to && !find(to)) throw new Error("They have left");
      const { id } = await (to ? chat.whisper(find(to), text) : chat.say(text));
      if (to || id <= newest.id) row.remove();
      row.dataset.id = id;
    } catch (error) {
      delete row.dataset.text;
      row.classList.add("failed");
      const button = (name, onclick) => make("button", { className: "link", onclick }, name);
      const discard = () => (row.remove(), $("text").focus());
      note.replaceChildren(make("span", { role: "alert" }, "Not sent. ", reason(error)), " ", button("Try again", attempt), " ", button("Discard", discard));
    }
  };
  attempt();
}

// One of ours came back: it need not stand below any more.
function settle({ id, text, whisper }) {
  const rows = whisper ? [] : [...$("outbox").children];
  (rows.find((row) => row.dataset.id === String(id)) ?? rows.find((row) => row.dataset.text === text))?.remove();
}

// --- The state of things ---

function state({ state, transport, endpoint, latency, retryIn }) {
  if (state === "connecting" && document.body.dataset.state === "waiting") return; // still away
  const status = { connecting: "Connecting", connected: "Connected", waiting: "Away", left: "Not connected" }[state];
  if ($("status").textContent !== status) $("status").textContent = status; // read aloud, so only what is new
  document.body.dataset.state = state;
  const facts = [transport, endpoint && new URL(endpoint).host, latency >= 0 && `${Math.ceil(latency)} ms`];
  $("detail").textContent = state === "connected" ? facts.filter(Boolean).join(" · ") : "";
  clearInterval(countdown);
  if (state === "waiting") {
    const at = Date.now() + (retryIn ?? 0);
    const tick = () => {
      const seconds = Math.ceil((at - Date.now()) / 1000);
      notice(`The server is out of reach. ${seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying again."}`, true);
    };
    tick();
    countdown = setInterval(tick, 500);
  } else if (state === "connected") {
    notice("");
    setTimeout(() => ($("log").ariaLive = "polite"));
  }
}

function notice(text, canTry = false) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("now").hidden = !canTry;
}

// The scroller is reversed: its end is at 0.
function isAtEnd() {
  return $("scroller").scrollTop > -80;
}

// --- What is pressed ---

$("enter").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  join((memory.name = name));
  $("text").focus();
};

$("compose").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || partner?.isGone) return;
  $("text").value = "";
  grow();
  send(text, partner);
};
$("text").oninput = grow;
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("compose").requestSubmit();
};

$("members").onclick = ({ target }) => choose(target.closest("li")?.dataset.connection);
$("messages").onclick = ({ target }) => target.closest(".name, .face") && choose(target.closest(".by").dataset.from);
$("now").onclick = () => dispatchEvent(new Event("online")); // which ends the pause of speak.js
$("newer").onclick = () => ($("scroller").scrollTop = 0);
$("scroller").onscroll = () => {
  if (isAtEnd()) unseen = 0;
  $("newer").hidden = !unseen;
};

function everybody() {
  turn(null);
  $("text").focus();
}
$("public").onclick = everybody;
addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && partner && !document.querySelector("dialog[open]")) everybody();
});

function aboutRoom() {
  $("address").textContent = location.href;
  $("other").value = "";
  $("snippet").textContent = `<pre id="log"></pre>
<form id="form"><input id="text"><button>Send</button></form>
<script src="${new URL("speak.js", document.baseURI)}"></script>
<script>
  const chat = Speak.join(${JSON.stringify(room).replaceAll("<", "\\u003c")}, { name: prompt("Name?") });
  chat.onmessage = (m) => {
    if (m.type === "message") log.append(\`\${m.name}: \${m.text}\\n\`);
  };
  form.onsubmit = () => { chat.say(text.value); form.reset(); return false; };
</script>`;
  $("room-dialog").showModal();
}
$("room").onclick = aboutRoom;
$("embed").onclick = () => {
  aboutRoom();
  document.querySelector("details").open = true;
  document.querySelector("summary").focus();
};
$("room-dialog").firstElementChild.onsubmit = ({ submitter }) => {
  const other = $("other").value.trim();
  if (other && submitter.value !== "close") location.hash = encodeURIComponent(other);
};

$("self-dialog").firstElementChild.onsubmit = async ({ submitter }) => {
  const name = $("rename").value.trim();
  if (submitter.value === "leave") {
    $("name").value = memory.name;
    join((memory.name = ""));
    $("name").focus();
  } else if (!submitter.value && name && name !== chat.me?.name) {
    try {
      await chat.rename(name);
      memory.name = name;
    } catch (error) {
      notice(reason(error));
    }
  }
};

addEventListener("visibilitychange", () => {
  if (!document.hidden) unread = 0;
  title();
});
addEventListener("hashchange", visit);
visit();
