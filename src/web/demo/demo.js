// Demo: a chat room in one page, built on speak.js. What members write is only ever shown as text,
// never as markup. The room's name is the part of the address after #: a browser does not send that
// part when it loads the page.

/* global Speak */
import {
  $,
  avatar,
  displayName,
  linkify,
  make,
  nameLabel,
  ownerButton,
  timeLabel,
} from "./elements.js";
import { addOwnRoom, channelOf, ownNameOf } from "./own_rooms.js";

const MAX_ROWS = 400; // above this, the oldest row is removed
const GROUP_MS = 120_000; // messages of one sender within this time share a heading
const EVERYONE = null; // recipient of a message to the whole room
const AWAY_S = 600; // time for which the owner sends a member away

const dayFormat = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });

let chat; // the current room; without a name, the page only reads it
let room; // the name in the address: of a room with an owner, the one that is given away
let ownerName; // secret name of the room, if this browser's user owns it
let recipient = EVERYONE; // EVERYONE, or the member that private messages go to
let unread = 0; // messages that came while the page was hidden
let unseen = 0; // messages that came below the visible part of the log
let newest; // the newest message of the room in the log
let lastRow; // of the last row: its sender, the time of its heading, its day
let countdown;
const names = new Map(); // by connection, to tell a new name from a new member
const drafts = new Map(); // by the recipient's inbox, so that no private text reaches the room

// Settings that the browser keeps. The user may have forbidden storage.
const settings = {
  get name() {
    try { return localStorage.getItem("speak-name") ?? ""; } catch { return ""; } // forbidden
  },
  set name(name) {
    try { localStorage.setItem("speak-name", name); } catch { /* forbidden */ }
  },
};

// --- Joining and leaving ---

function enterRoom() {
  let name = location.hash.slice(1);
  try { name = decodeURIComponent(name); } catch { /* a stray %: use the name as it is written */ }
  if (/^~o[A-Za-z0-9]{22}$/.test(name)) return void adoptRoom(name);
  if (room === (name ||= "lobby")) return;
  room = name;
  ownerName = ownNameOf(room);
  newest = { id: 0, time: 0 };
  lastRow = {};
  unread = unseen = 0;
  names.clear();
  setRecipient(EVERYONE);
  drafts.clear();
  $("text").value = "";
  $("messages").replaceChildren();
  $("outbox").replaceChildren();
  $("new-messages").hidden = true;
  $("room-name").textContent = roomLabel();
  updateTitle();
  join(settings.name);
}

// The name of a room, or what kind of a room it is if the name is one of the server's.
function roomLabel() {
  if (ownerName) return "Your room";
  return { "~c": "A room", "~b": "A feed" }[room.slice(0, 2)] ?? room;
}

async function makeRoom() {
  try {
    const { owner, channel } = await Speak.create("room");
    const isKept = addOwnRoom(channel, owner);
    location.hash = channel;
    enterRoom();
    showRoomInfo();
    if (!isKept) $("room-note").append(" It keeps nothing, so only until you close the page.");
  } catch (error) {
    showNotice(errorText(error));
  }
}

// An address with an owner's name is not for sharing. So the page keeps the name, and goes to the
// address of the room: that is the hash of the name.
async function adoptRoom(owner) {
  history.replaceState(null, "", "#");
  if (!crypto.subtle) {
    enterRoom();
    showNotice("Only a page by https can open a room by its owner's name.");
    return;
  }
  const channel = await channelOf(owner);
  addOwnRoom(channel, owner);
  history.replaceState(null, "", `#${channel}`);
  enterRoom();
}

function join(name) {
  if (chat) {
    for (const event of ["message", "removal", "members", "state", "missed", "error"])
      chat[`on${event}`] = null;
    chat.leave().catch(() => {}); // without a goodbye, the server ends the connection by timeout
  }
  setRecipient(EVERYONE);
  renderMembers([]);
  showNotice("");
  $("log").ariaLive = "off"; // screen readers do not read older messages aloud
  const isReadOnly = /^~[rb]/.test(room);
  $("join").hidden = isReadOnly || Boolean(name);
  $("compose").hidden = isReadOnly || !name;
  chat = Speak.join(room, { name, owner: ownerName });
  chat.onmessage = onMessage;
  chat.onremoval = onRemoval;
  chat.onmembers = renderMembers;
  chat.onstate = renderState;
  chat.onmissed = () => renderEvent(Date.now(), "Some messages were lost");
  chat.onerror = onError;
  // On a touch screen, the focus would open a keyboard that covers the room.
  if (matchMedia("(pointer: fine)").matches) $(name ? "text" : "name").focus();
}

function onError(error) {
  showNotice(errorText(error));
  if (error.name !== "removed") return;
  // The member may come back later.
  $("compose").hidden = true;
  $("join").hidden = false;
  $("name").value = settings.name;
}

function errorText({ name, detail, message }) {
  if (name === "removed") return "The owner of this room sent you away. You may come back later.";
  return detail ? `The server says: ${detail}.` : `${message}.`;
}

// --- The log ---

function onMessage(m) {
  if (!m.whisper) {
    if (m.id <= newest.id) {
      if (m.time <= newest.time) return; // in the log since the page read the room without a name
      names.clear(); // the server restarted, so ids and connections start again
    }
    newest = m;
  }
  if (m.type === "introduction") {
    const before = names.get(m.from);
    names.set(m.from, m.name);
    if (before === undefined) renderEvent(m.time, nameLabel(m), " came in");
    else if (before !== m.name) {
      renderEvent(m.time, nameLabel({ name: before }), " is now ", nameLabel(m));
    } else return;
    const { dataset } = $("messages").lastElementChild.lastElementChild;
    Object.assign(dataset, { id: m.id, from: m.from });
  } else if (m.type === "goodbye") {
    names.delete(m.from);
    const how = { timeout: " lost the connection", removed: " was sent away" }[m.reason];
    renderEvent(m.time, nameLabel(m), how ?? " left", m.text && `: ${m.text}`);
  } else {
    renderMessage(m);
  }
}

// Takes away what a message said, or a name that an introduction brought.
function onRemoval({ of }) {
  const shown = $("messages").querySelector(`[data-id="${of}"]`);
  if (!shown) return;
  if (shown.tagName === "LI") {
    // The owner's keyboard stays in the log.
    if (shown.contains(document.activeElement)) $("scroller").focus();
    shown.querySelector(".line")?.replaceWith(removedLine()); // else it came without its text
  } else {
    shown.replaceChildren("A name was removed");
    for (const byline of $("messages").querySelectorAll(".message:not(.own) .byline")) {
      if (byline.dataset.from !== shown.dataset.from) continue;
      byline.querySelector(".name").replaceChildren(nameLabel({}));
      byline.querySelector(".avatar").replaceWith(avatar());
    }
  }
}

function removedLine() {
  return make("p", { className: "removed" }, "Message removed");
}

function renderMessage(m) {
  if (m.own) removeFromOutbox(m);
  renderDay(m.time);
  const sender = [m.from, m.own, m.whisper, m.to?.connection].join();
  const isContinued = sender === lastRow.sender && m.time - lastRow.time < GROUP_MS;
  if (!isContinued) Object.assign(lastRow, { sender, time: m.time });
  appendRow(messageRow(m, isContinued));
  if (m.own || m.removed) return;
  if (document.hidden) unread += 1;
  updateTitle();
  if (isAtEnd()) return;
  unseen += 1;
  $("new-messages").textContent = `↓ ${unseen} new`;
  $("new-messages").hidden = false;
}

// Adds an event to the last row if it is a row of events, else adds a row.
function renderEvent(time, ...content) {
  renderDay(time);
  const row = $("messages").lastElementChild;
  const event = make("span", {}, ...content);
  if (row.className === "events") row.append(" ", event);
  else appendRow(make("li", { className: "events" }, timeLabel(time), event));
  lastRow.sender = null;
}

function renderDay(time) {
  const day = dayFormat.format(time);
  if (day === lastRow.day) return;
  lastRow = { day };
  appendRow(make("li", { className: "day" }, day));
}

function appendRow(row) {
  const rows = $("messages");
  rows.append(row);
  if (rows.childElementCount > MAX_ROWS) rows.firstElementChild.remove();
}

function messageRow(m, isContinued) {
  const row = make("li", { className: "message" });
  const classes = { own: m.own, private: m.whisper, continued: isContinued };
  for (const [name, isSet] of Object.entries(classes)) row.classList.toggle(name, Boolean(isSet));
  // In a group of messages, only screen readers get the headings after the first one.
  const name = make("b", { className: "name" }, m.own ? "You" : nameLabel(m));
  const heading = make("p", { className: "byline" }, m.own ? "" : avatar(m.name), name);
  heading.dataset.from = m.from ?? "";
  if (m.whisper) {
    const to = m.to ? [" to ", nameLabel(m.to)] : [];
    heading.append(make("span", { className: "private-label" }, "privately", ...to));
  }
  if (m.owner) heading.append(make("span", { className: "owner-label" }, "owner"));
  if (m.time) heading.append(timeLabel(m.time));
  if (m.id && !m.whisper) row.dataset.id = m.id;
  const text = make("p", { className: "text", dir: "auto" }, ...linkify(m.text));
  row.append(heading, m.removed ? removedLine() : make("div", { className: "line" }, text));
  if (ownerName && m.id && !m.whisper && !m.removed) {
    text.after(ownerButton("Remove", "Remove for all?", () => act(chat.remove(m.id))));
  }
  return row;
}

// Waits for what the owner has asked for. Says why if it did not happen.
async function act(call) {
  await call.catch((error) => showNotice(errorText(error)));
}

function updateTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}${roomLabel()} · Speak`;
}

// --- Members ---

function renderMembers(list) {
  const rows = $("members");
  const old = new Map([...rows.children].map((row) => [row.dataset.connection, row]));
  [...list].sort((a, b) => b.own - a.own).forEach((member, index) => {
    const key = String(member.connection);
    const row = old.get(key) ?? make("li", {}, make("button"));
    const button = row.firstChild;
    old.delete(key);
    row.dataset.connection = key;
    const name = make("span", { className: "name" }, nameLabel(member));
    const label = member.own ? "you" : member.owner && "owner";
    button.replaceChildren(avatar(member.name), name, label ? make("small", {}, label) : "");
    button.disabled = !member.own && !(member.inbox && chat.me);
    if (member.own) button.title = "Change your name, or leave";
    else button.title = button.disabled ? "" : `Write to ${displayName(member.name)} alone`;
    if (ownerName && !member.own && !member.owner) {
      const sendAway = () => act(chat.kick(member.connection, { seconds: AWAY_S }));
      if (row.lastChild === button)
        row.append(ownerButton("Send away", "Ten minutes?", sendAway));
      row.lastChild.title = displayName(member.name);
    }
    // A row moves only if its place has changed, so that it keeps the focus.
    if (rows.children[index] !== row) rows.insertBefore(row, rows.children[index] ?? null);
  });
  for (const row of old.values()) {
    if (row.contains(document.activeElement)) $("text").focus();
    row.remove();
  }
  $("member-count").textContent = list.length ? `${list.length} here` : "No one here yet";
  setRecipient(recipient && (findMember(recipient, list) ?? { ...recipient, isGone: true }));
}

// Finds a member by its inbox, for after a restart its connection may belong to another member.
function findMember({ inbox }, list = chat.members) {
  return list.find((member) => member.inbox === inbox);
}

function selectMember(connection) {
  const member = chat.members.find((member) => member.connection === Number(connection));
  if (member?.own) {
    $("rename").value = member.name;
    $("self-dialog").showModal();
    $("rename").select();
  } else if (member?.inbox && chat.me) {
    setRecipient(member);
    $("text").focus();
  }
}

// --- Writing ---

function setRecipient(to) {
  const text = $("text");
  if (to?.inbox !== recipient?.inbox) {
    drafts.set(recipient?.inbox, text.value);
    text.value = drafts.get(to?.inbox) ?? "";
  }
  recipient = to;
  const label = to ? displayName(to.name) : `everybody in ${roomLabel()}`;
  text.placeholder = to ? "Private message" : "Write to everybody";
  text.ariaLabel = to ? `Private message to ${label}` : `Message to ${label}`;
  $("private").hidden = !to;
  $("compose").classList.toggle("private", Boolean(to));
  const note = to?.isGone ? " has left and gets no more messages." : " alone will see this.";
  $("private-note").replaceChildren(...(to ? [nameLabel(to), note] : []));
  for (const row of $("members").children) {
    row.firstChild.ariaPressed = row.dataset.connection === String(to?.connection);
  }
  autoGrow();
}

function autoGrow() {
  const { style } = $("text");
  style.height = "auto";
  style.height = `${$("text").scrollHeight + 2}px`;
}

// A message stays in the outbox until the server sends it back, or until it is discarded.
function send(text, to) {
  const isBlind = /^~[wf]/.test(room); // nothing that is written here comes back
  const row = messageRow({ own: true, whisper: Boolean(to), to, text });
  const note = make("p", { className: "note" });
  row.append(note);
  $("outbox").append(row);
  $("scroller").scrollTop = 0;
  const attempt = async () => {
    if (!to) row.dataset.text = text;
    row.classList.remove("failed");
    note.textContent = "Sending …";
    try {
      if (to && !findMember(to)) throw new Error("They have left");
      const { id } = await (to ? chat.whisper(findMember(to), text) : chat.say(text));
      if (to || id <= newest.id) row.remove();
      else if (isBlind) note.textContent = "Sent";
      row.dataset.id = id;
    } catch (error) {
      delete row.dataset.text;
      row.classList.add("failed");
      const button = (name, onclick) => make("button", { className: "link", onclick }, name);
      const discard = () => (row.remove(), $("text").focus());
      const alert = make("span", { role: "alert" }, "Not sent. ", errorText(error));
      const again = button("Try again", attempt);
      note.replaceChildren(alert, " ", again, " ", button("Discard", discard));
    }
  };
  attempt();
}

// Removes one of the page's own messages from the outbox, because the log has it now.
function removeFromOutbox({ id, text, whisper }) {
  const rows = whisper ? [] : [...$("outbox").children];
  const row = rows.find((row) => row.dataset.id === String(id));
  (row ?? rows.find((row) => row.dataset.text === text))?.remove();
}

// --- The connection ---

const STATUS = {
  connecting: "Connecting",
  connected: "Connected",
  waiting: "Away",
  left: "Not connected",
};

function renderState({ state, transport, endpoint, latency, retryIn }) {
  const isRetrying = state === "connecting" && document.body.dataset.state === "waiting";
  if (isRetrying) return; // the notice remains until the attempt succeeds
  const status = STATUS[state];
  // Screen readers read every change of this text aloud.
  if ($("status").textContent !== status) $("status").textContent = status;
  document.body.dataset.state = state;
  const host = endpoint && new URL(endpoint).host;
  const facts = [transport, host, latency >= 0 && `${Math.ceil(latency)} ms`];
  $("detail").textContent = state === "connected" ? facts.filter(Boolean).join(" · ") : "";
  clearInterval(countdown);
  if (state === "waiting") {
    const at = Date.now() + (retryIn ?? 0);
    const tick = () => {
      const seconds = Math.ceil((at - Date.now()) / 1000);
      const next = seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying again.";
      showNotice(`The server is out of reach. ${next}`, true);
    };
    tick();
    countdown = setInterval(tick, 500);
  } else if (state === "connected") {
    showNotice("");
    setTimeout(() => ($("log").ariaLive = "polite"));
  }
}

function showNotice(text, canRetry = false) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("retry").hidden = !canRetry;
}

// The scroller is reversed: the position of its end is 0.
function isAtEnd() {
  return $("scroller").scrollTop > -80;
}

// --- Input ---

$("join").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  join((settings.name = name));
  $("text").focus();
};

$("compose").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || recipient?.isGone) return;
  $("text").value = "";
  autoGrow();
  send(text, recipient);
};
$("text").oninput = autoGrow;
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("compose").requestSubmit();
};

$("members").onclick = ({ target }) => {
  if (target.closest(".owner-action")) return;
  selectMember(target.closest("li")?.dataset.connection);
};
$("messages").onclick = ({ target }) => {
  if (!target.closest(".name, .avatar")) return;
  selectMember(target.closest(".byline").dataset.from);
};
$("retry").onclick = () => dispatchEvent(new Event("online")); // ends the pause of speak.js
$("new-messages").onclick = () => ($("scroller").scrollTop = 0);
$("scroller").onscroll = () => {
  if (isAtEnd()) unseen = 0;
  $("new-messages").hidden = !unseen;
};

function writeToEveryone() {
  setRecipient(EVERYONE);
  $("text").focus();
}
$("to-everyone").onclick = writeToEveryone;
addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && recipient && !document.querySelector("dialog[open]")) writeToEveryone();
});

function showRoomInfo() {
  $("address").textContent = location.href;
  $("room-note").textContent = ownerName
    ? "This browser alone knows that the room is yours: here, you can remove messages, and send "
      + "people away for ten minutes."
    : "";
  $("other-room").value = "";
  const roomText = JSON.stringify(room).replaceAll("<", "\\u003c");
  $("snippet").textContent = `<pre id="log"></pre>
<form id="form"><input id="text"><button>Send</button></form>
<script src="${new URL("speak.js", document.baseURI)}"></script>
<script>
  const chat = Speak.join(${roomText}, { name: prompt("Name?") });
  chat.onmessage = (m) => {
    if (m.type === "message") log.append(\`\${m.name}: \${m.text}\\n\`);
  };
  form.onsubmit = () => { chat.say(text.value); form.reset(); return false; };
</script>`;
  $("room-dialog").showModal();
}
$("room").onclick = showRoomInfo;
$("make-room").onclick = $("make-room-here").onclick = makeRoom;
$("embed").onclick = () => {
  showRoomInfo();
  document.querySelector("details").open = true;
  document.querySelector("summary").focus();
};
$("room-dialog").firstElementChild.onsubmit = ({ submitter }) => {
  const other = $("other-room").value.trim();
  if (other && submitter.value !== "close") location.hash = encodeURIComponent(other);
};

$("self-dialog").firstElementChild.onsubmit = async ({ submitter }) => {
  const name = $("rename").value.trim();
  if (submitter.value === "leave") {
    $("name").value = settings.name;
    join((settings.name = ""));
    $("name").focus();
  } else if (!submitter.value && name && name !== chat.me?.name) {
    try {
      await chat.rename(name);
      settings.name = name;
    } catch (error) {
      showNotice(errorText(error));
    }
  }
};

addEventListener("visibilitychange", () => {
  if (!document.hidden) unread = 0;
  updateTitle();
});
addEventListener("hashchange", enterRoom);
enterRoom();
