// Runs pages in a real browser, those of the folder that it is given. A line on standard input is a
// number, the name of a page and a call of one of its functions; the answer is a line with the same
// number, `ok` or `error`, and what it came to. A page begins when it is first named. The end of
// standard input ends everything.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const ROOT = process.argv[2];
const EXECUTABLE = "/usr/bin/chromium";
const ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
// WebTransport needs a secure context, which plain HTTP is on localhost only.
const HOST = "localhost";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, `http://${HOST}`);
    try {
        const file = await readFile(join(ROOT, normalize(pathname)));
        response.setHeader("content-type", TYPES[extname(pathname)] ?? "application/octet-stream");
        // The pages of a run share one cache: the client is a hundred files.
        response.setHeader("cache-control", "max-age=3600");
        response.end(file);
    } catch {
        response.statusCode = 404;
        response.end();
    }
});
await new Promise((listening) => server.listen(0, HOST, listening));

// With NETLOG=FILE in the environment the browser keeps its own log of what went over the network.
const args = process.env.NETLOG ? [...ARGS, `--log-net-log=${process.env.NETLOG}`] : ARGS;
const browser = await chromium.launch({ executablePath: EXECUTABLE, args });
const context = await browser.newContext();
const pages = new Map();

async function open(name) {
    const page = await context.newPage();
    page.on("console", (message) => console.error(`${name}: ${message.text()}`));
    page.on("pageerror", (error) => console.error(`${name}: ${error.stack}`));
    await page.goto(`http://${HOST}:${server.address().port}/page.html`);
    await page.waitForFunction(() => "stage" in window);
    return page;
}

async function evaluate(name, call) {
    if (!pages.has(name)) pages.set(name, open(name));
    const page = await pages.get(name);
    // The tab is closed as a user closes it, with no word to the relay from its script.
    return call === "quit" ? page.close() : page.evaluate(`stage.${call}`);
}

async function answer(line) {
    const [, number, name, call] = line.match(/^(\S+) (\S+) (.*)$/);
    try {
        const value = (await evaluate(name, call)) ?? "";
        console.log(`${number} ok ${value}`);
    } catch (error) {
        console.log(`${number} error ${error.message.split("\n")[0]}`);
    }
}

console.log(`0 ok ${browser.version()}`);
for await (const line of createInterface({ input: process.stdin })) void answer(line);
await browser.close();
process.exit();
