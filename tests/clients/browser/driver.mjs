// Runs pages in a real browser, those of the folder that it is given. A line on standard input is a
// number, the name of a page and a call of one of its functions, or what happens to its tab; the
// answer is a line with the same number, `ok` or `error`, and what it came to. A page begins when it
// is first named. The end of standard input ends everything.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
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
    // A camera and a microphone of the browser's own, and loudspeakers, without a click.
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    // No page waits because another one is in front.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
];
// WebTransport and cameras need a secure context, which plain HTTP is on localhost only.
const HOST = "localhost";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

// The script of the folder with all that it imports, for pages whose import map would be endless.
let bundle;

async function bundled() {
    bundle ??= build({
        entryPoints: [join(ROOT, "page.js")],
        bundle: true,
        format: "esm",
        write: false,
        // For browsers without encoders and decoders of their own.
        external: ["@libav.js/*", "@kixelated/*"],
    });
    return (await bundle).outputFiles[0].contents;
}

const read = (path) => (path === "/bundle.js" ? bundled() : readFile(join(ROOT, normalize(path))));

const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, `http://${HOST}`);
    try {
        const file = await read(pathname);
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

async function open(name, context, query) {
    const page = await context.newPage();
    page.errors = [];
    page.on("console", (message) => {
        console.error(`${name}: ${message.type()}: ${message.text()}`);
        if (message.type() === "error") page.errors.push(message.text());
    });
    page.on("pageerror", (error) => {
        console.error(`${name}: ${error.stack}`);
        page.errors.push(error.message);
    });
    await page.goto(`http://${HOST}:${server.address().port}/page.html${query}`);
    await ready(page);
    return page;
}

const ready = (page) => page.waitForFunction(() => "stage" in window);

// Windows that share a context are painted once a second, but for the one in front.
async function openWindow(name, query) {
    const window = await browser.newContext({ permissions: ["camera", "microphone"] });
    return open(name, window, query);
}

// What happens to a tab, rather than in its page.
const TAB = {
    async reload(page) {
        await page.reload();
        await ready(page);
    },
    // The process behind the page ends, with no word from its script.
    async crash(page) {
        const crashed = page.waitForEvent("crash");
        const devtools = await page.context().newCDPSession(page);
        devtools.send("Page.crash").catch(() => {});
        await crashed;
    },
    // As a user closes it, with no word to the relay from its script.
    quit: (page) => page.close(),
    // What its console has shown in red so far.
    errors: (page) => page.errors.join("; ").replaceAll("\n", " "),
};

async function evaluate(name, call) {
    const [verb, query] = call.split(" ", 2);
    if (verb === "window") {
        pages.set(name, openWindow(name, query));
        await pages.get(name);
        return;
    }
    if (!pages.has(name)) pages.set(name, open(name, context, ""));
    const page = await pages.get(name);
    return Object.hasOwn(TAB, verb) ? TAB[verb](page) : page.evaluate(`stage.${call}`);
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
