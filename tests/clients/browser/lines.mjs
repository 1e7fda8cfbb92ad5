// How plays ask for things. A line on standard input is a number, a name and a call; the answer is a
// line with the same number, `ok` or `error`, and what it came to.

import { createInterface } from "node:readline";

// Says that all is ready, and answers until standard input ends.
export async function serve(hello, evaluate) {
    const say = (line) => process.stdout.write(`${line}\n`);
    const answer = async (line) => {
        const [, number, name, call] = line.match(/^(\S+) (\S+) (.*)$/);
        try {
            const value = (await evaluate(name, call)) ?? "";
            say(`${number} ok ${value}`);
        } catch (error) {
            say(`${number} error ${error.message.split("\n")[0]}`);
        }
    };
    say(`0 ok ${hello}`);
    for await (const line of createInterface({ input: process.stdin })) void answer(line);
}
