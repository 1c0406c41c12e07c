import { useCallback, useEffect, useRef, useState } from "react";
import { join } from "speak-client";

const EMPTY = { messages: [], members: [], state: "connecting", error: null };

/** Is in the room for as long as the component is there. */
export function useChat(room, { server, name }) {
  const [view, setView] = useState(EMPTY);
  const current = useRef(null);

  useEffect(() => {
    const chat = join(room, { server, name, inbox: false });
    const update = (change) => setView((view) => ({ ...view, ...change(view) }));
    chat.onmessage = (message) => update(({ messages }) => ({ messages: [...messages, message] }));
    chat.onremoval = ({ of }) =>
      update(({ messages }) => ({ messages: messages.filter(({ id }) => id !== of) }));
    chat.onmembers = (members) => update(() => ({ members }));
    chat.onstate = ({ state }) => update(() => ({ state }));
    chat.onerror = (error) => update(() => ({ error }));
    current.current = chat;
    return () => {
      chat.leave();
      setView(EMPTY);
    };
  }, [room, server, name]);

  const say = useCallback((text) => current.current.say(text), []);
  return { ...view, say };
}
