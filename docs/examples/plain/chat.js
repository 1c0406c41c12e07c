import { join } from "speak-client";

const server = import.meta.env.VITE_SPEAK_SERVER ?? "http://localhost:8080";
const element = (id) => document.getElementById(id);
const entry = element("entry");
const form = element("form");
const failure = element("failure");

entry.addEventListener("submit", (event) => {
  event.preventDefault();
  entry.hidden = true;
  element("room").hidden = false;
  start(entry.elements.name.value);
});

function start(name) {
  const chat = join("examples", { server, name, inbox: false });
  const items = new Map(); // of the messages, by their ids

  chat.onmessage = ({ id, type, name = "guest", text }) => {
    if (type !== "message") return;
    const item = Object.assign(document.createElement("li"), { textContent: `${name}: ${text}` });
    items.set(id, item);
    element("log").append(item);
  };
  chat.onremoval = ({ of }) => items.get(of)?.remove();
  chat.onmembers = (members) => {
    element("members").textContent = members.map(({ name }) => name).join(", ");
  };
  chat.onstate = ({ state }) => (element("state").textContent = state);
  chat.onerror = (error) => (failure.textContent = error.message);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = form.elements.text;
    const text = field.value;
    field.value = failure.textContent = "";
    try {
      await chat.say(text);
    } catch (error) {
      failure.textContent = error.message;
      field.value ||= text; // the text is the user's
    }
  });
}
