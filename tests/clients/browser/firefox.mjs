// Debian's Firefox, by WebDriver BiDi.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import puppeteer from "puppeteer-core";
import { trust } from "./chromium.mjs";

const EXECUTABLE = "/usr/bin/firefox-esr";
const PREFERENCES = {
    // A camera and a microphone of the browser's own, and loudspeakers, without a click.
    "media.navigator.streams.fake": true,
    "media.navigator.permission.disabled": true,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
};
// Longer than the plays wait for anything.
const PATIENCE_MS = 60_000;

export async function launch(home, authority) {
    const profile = join(home, "profile");
    await mkdir(profile);
    if (authority) trust(profile, authority);
    const loudspeaker = await startLoudspeaker(home);
    const browser = await puppeteer.launch({
        browser: "firefox",
        executablePath: EXECUTABLE,
        userDataDir: profile,
        protocolTimeout: PATIENCE_MS,
        extraPrefsFirefox: PREFERENCES,
        env: { ...process.env, HOME: home, PULSE_SERVER: `unix:${loudspeaker}` },
    });
    return {
        version: await browser.version(),
        // Tabs that are not in front of their window are hidden, and their timers come once a second: by such
        // timers the client waits for its WebSocket.
        page: () => browser.newPage({ type: "window" }),
        async window() {
            const context = await browser.createBrowserContext();
            return context.newPage({ type: "window" });
        },
        close: () => browser.close(),
    };
}

// Without a loudspeaker Firefox runs no audio context, not even that of a microphone.
async function startLoudspeaker(home) {
    const socket = join(home, "loudspeaker");
    const load = ["-L", `module-native-protocol-unix socket=${socket} auth-anonymous=1`, "-L", "module-null-sink"];
    const alone = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"];
    const env = { ...process.env, HOME: home, XDG_RUNTIME_DIR: home };
    const server = spawn("pulseaudio", [...alone, ...load], { env, stdio: "ignore" });
    process.on("exit", () => server.kill());
    const ended = new Promise((_, reject) => {
        server.on("error", reject);
        server.on("exit", (code) => reject(new Error(`pulseaudio ended with ${code}`)));
    });
    ended.catch(() => {});
    const bound = async () => {
        while (!existsSync(socket)) await setTimeout(10);
    };
    await Promise.race([bound(), ended]);
    return socket;
}
