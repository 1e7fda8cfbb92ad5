// Runs the page of a folder in a real browser: node driver.mjs FOLDER BROWSER [CERTIFICATES]. A line on
// standard input names a page and a call of one of its functions, or what happens to its tab. A page begins when
// it is first named. The end of standard input ends everything. Pages come by HTTPS if there is a folder with a
// certificate (cert.pem, key.pem); the browser trusts the authority (ca.pem) that has issued it.

import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { build } from "esbuild";
import { serve } from "./lines.mjs";

const [ROOT, BROWSER, CERTIFICATES] = process.argv.slice(2);
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

async function respond(request, response) {
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
}

const certificate = (name) => readFile(join(CERTIFICATES, name));
const server = CERTIFICATES
    ? createSecureServer({ cert: await certificate("cert.pem"), key: await certificate("key.pem") }, respond)
    : createServer(respond);
await new Promise((listening) => server.listen(0, HOST, listening));
const PAGE = `http${CERTIFICATES ? "s" : ""}://${HOST}:${server.address().port}/page.html`;

const home = await mkdtemp(join(tmpdir(), "shardcast-browser-"));
const { launch } = await import(`./${BROWSER}.mjs`);
const browser = await launch(home, CERTIFICATES && join(CERTIFICATES, "ca.pem"));
const pages = new Map();

async function open(name, opened, query) {
    const page = await opened;
    page.errors = [];
    page.on("console", (message) => {
        console.error(`${name}: ${message.type()}: ${message.text()}`);
        if (message.type() === "error") page.errors.push(message.text());
    });
    page.on("pageerror", (error) => {
        console.error(`${name}: ${error.stack}`);
        page.errors.push(error.message);
    });
    await page.goto(PAGE + query);
    await ready(page);
    return page;
}

const ready = (page) => page.waitForFunction(() => "stage" in window);

// What happens to a tab, rather than in its page.
const TAB = {
    async reload(page) {
        await page.reload();
        await ready(page);
    },
    crash: (page) => browser.crash(page),
    // As a user closes it, with no word to the relay from its script.
    quit: (page) => page.close(),
    // What its console has shown in red so far.
    errors: (page) => page.errors.join("; ").replaceAll("\n", " "),
};

await serve(browser.version, async (name, call) => {
    const [verb, query] = call.split(" ", 2);
    if (verb === "window") {
        pages.set(name, open(name, browser.window(), query));
        await pages.get(name);
        return;
    }
    if (!pages.has(name)) pages.set(name, open(name, browser.page(), ""));
    const page = await pages.get(name);
    return Object.hasOwn(TAB, verb) ? TAB[verb](page) : page.evaluate(`stage.${call}`);
});
await browser.close();
await rm(home, { recursive: true, force: true });
process.exit();
