// Debian's Chromium, by its DevTools.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

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

// `home` is a directory for what the browser keeps, and `authority` a file with a certificate that it trusts
// as if its user had said so.
export async function launch(home, authority) {
    const env = { ...process.env, HOME: home };
    if (authority) {
        const trusted = join(home, ".pki/nssdb");
        mkdirSync(trusted, { recursive: true });
        trust(trusted, authority);
    }
    // With NETLOG=FILE in the environment the browser keeps its own log of what went over the network.
    const args = process.env.NETLOG ? [...ARGS, `--log-net-log=${process.env.NETLOG}`] : ARGS;
    const browser = await chromium.launch({ executablePath: EXECUTABLE, args, env });
    const context = await browser.newContext();
    return {
        version: browser.version(),
        page: () => context.newPage(),
        // Windows that share a context are painted once a second, but for the one in front.
        async window() {
            const window = await browser.newContext({ permissions: ["camera", "microphone"] });
            return window.newPage();
        },
        // The process behind the page ends, with no word from its script.
        async crash(page) {
            const crashed = page.waitForEvent("crash");
            const devtools = await page.context().newCDPSession(page);
            devtools.send("Page.crash").catch(() => {});
            await crashed;
        },
        close: () => browser.close(),
    };
}

// Writes it into the store of certificates that browsers keep.
export function trust(store, authority) {
    const certutil = (...args) => execFileSync("certutil", [...args, "-d", `sql:${store}`]);
    certutil("-N", "--empty-password");
    certutil("-A", "-n", "tests", "-t", "C,,", "-i", authority);
}
