import { join } from "speak-client";
import { onScopeDispose, ref, shallowRef } from "vue";

/** Is in the room for as long as the component is there. */
export function useChat(room, { server, name }) {
  const messages = ref([]);
  const members = shallowRef([]);
  const state = ref("connecting");
  const error = shallowRef(null);

  const chat = join(room, { server, name, inbox: false });
  chat.onmessage = (message) => messages.value.push(message);
  chat.onremoval = ({ of }) => (messages.value = messages.value.filter(({ id }) => id !== of));
  chat.onmembers = (list) => (members.value = list);
  chat.onstate = (now) => (state.value = now.state);
  chat.onerror = (reason) => (error.value = reason);
  onScopeDispose(() => chat.leave());

  return { messages, members, state, error, say: chat.say };
}
