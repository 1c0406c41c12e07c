// Demo: a page with the element of speak-chat.js, and what is only its own. That is the address of
// the room, rooms of the user's own, and the title. The room's name is the part of the address
// after #: a browser does not send that part when it loads the page.

/* global Speak */
import { addOwnRoom, channelOf, ownNameOf } from "./own_rooms.js";

const $ = (id) => document.getElementById(id);
const element = $("chat");

let unread = 0; // messages that came while the page was hidden

// --- The room in the address ---

function enterRoom() {
  let name = location.hash.slice(1);
  try { name = decodeURIComponent(name); } catch { /* a stray %: use the name as it is written */ }
  if (/^~o[A-Za-z0-9]{22}$/.test(name)) return void adoptRoom(name);
  name ||= "lobby";
  if (name === element.room) return;
  element.room = name;
  element.owner = ownNameOf(name);
  unread = 0;
  updateLabels();
}

// An address with an owner's name is not for sharing. So the page keeps the name, and goes to the
// address of the room: that is the hash of the name.
async function adoptRoom(owner) {
  history.replaceState(null, "", "#");
  if (!crypto.subtle) {
    enterRoom();
    const note = "Only a page by https can open a room by its owner's name.";
    // The connection takes the notes away that are older.
    const show = () => queueMicrotask(() => element.show(note));
    return element.addEventListener("speak-state", show, { once: true });
  }
  const channel = await channelOf(owner);
  addOwnRoom(channel, owner);
  history.replaceState(null, "", `#${channel}`);
  enterRoom();
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
    element.show(`There is no new room: ${error.detail ?? error.message}.`);
  }
}

// --- The title, and the state of the connection ---

function updateLabels() {
  $("room-name").textContent = element.label;
  document.title = `${unread ? `(${unread}) ` : ""}${element.label} · Speak`;
}

element.addEventListener("speak-message", ({ detail: { type, own } }) => {
  if (type === "message" && !own && document.hidden) unread += 1;
  updateLabels();
});
addEventListener("visibilitychange", () => {
  if (!document.hidden) unread = 0;
  updateLabels();
});

element.addEventListener("speak-state", ({ detail: { state, transport, endpoint, latency } }) => {
  if (state === "connecting") return;
  const host = endpoint && new URL(endpoint).host;
  const facts = [transport, host, latency >= 0 && `${Math.ceil(latency)} ms`];
  $("detail").textContent = state === "connected" ? facts.filter(Boolean).join(" · ") : "";
});

// --- The dialog of the room ---

function showRoomInfo() {
  $("address").textContent = location.href;
  $("room-note").textContent = element.owner
    ? "This browser alone knows that the room is yours: here, you can remove messages, and send "
      + "people away for ten minutes."
    : "";
  $("other-room").value = "";
  const src = new URL("speak-chat.js", document.baseURI);
  const room = element.room.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  $("snippet").textContent =
    `<script src="${src}" async></script>\n<speak-chat room="${room}"></speak-chat>`;
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

addEventListener("hashchange", enterRoom);
enterRoom();
