// Programs that the tests start, each with a folder of its own as home and profile.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Starts a program. stop() ends it, and removes its folder.
 *
 * @param {string} path
 * @param {(folder: string) => string[]} args
 * @param {{ env?: object, stdio?: any[] }} [options]
 */
export async function startProgram(path, args, options = {}) {
  const { env = {}, stdio = ["ignore", "ignore", "pipe"] } = options;
  const folder = await mkdtemp(join(tmpdir(), "speak-engine-"));
  const child = spawn(path, args(folder), { stdio, env: { ...process.env, HOME: folder, ...env } });
  process.once("exit", () => child.kill("SIGKILL"));
  const ended = once(child, "exit");
  ended.catch(() => {}); // if the program is missing, the next line fails
  await once(child, "spawn");
  // A test that fails must not keep the others from ending.
  child.unref();
  for (const pipe of child.stdio) pipe?.unref();
  return {
    child,
    async stop() {
      child.ref();
      child.kill();
      await ended;
      await rm(folder, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}

/**
 * Returns the ids of a process and of its descendants.
 *
 * @param {number} pid
 */
export async function processTree(pid) {
  const children = new Map();
  for (const id of (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number)) {
    const stat = await readFile(`/proc/${id}/stat`, "utf8").catch(() => ""); // it may have ended
    // PID (NAME) STATE PARENT …, and the name may have any characters: see proc(5).
    const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    children.set(parent, [...(children.get(parent) ?? []), id]);
  }
  const tree = [pid];
  for (const id of tree) tree.push(...(children.get(id) ?? []));
  return tree;
}

/**
 * Stops a process and its descendants, as a machine that sleeps does. Returns a function that lets
 * them continue.
 *
 * @param {number} pid
 */
export async function putToSleep(pid) {
  const tree = await processTree(pid);
  const signal = (name) => {
    for (const id of tree) {
      try {
        process.kill(id, name);
      } catch (error) {
        if (error.code !== "ESRCH") throw error; // it has ended
      }
    }
  };
  signal("SIGSTOP");
  return () => signal("SIGCONT");
}
