// A page with one of the released elements: a camera and a microphone that are published, or a
// player. Its URL says which; what the plays in tests/player.rs can do with it are the functions of
// `stage`. A moment is in milliseconds since 1970, and so comparable between pages.

import "@moq/publish/element";
import "@moq/watch/element";

// How long anything may take before its play has failed in any case.
const PATIENCE_MS = 16_000;

// Two pages of one machine agree on the time to within this.
const CLOCKS_AGREE_MS = 10;

const query = Object.fromEntries(new URLSearchParams(location.search));
const now = () => performance.timeOrigin + performance.now();

// Shown when a play fails.
const note = (text) => console.debug(`${performance.now().toFixed()} ms: ${text}`);

// What happened when, in order, and a way to await what happens next.
class Journal {
    entries = [];
    #readers = new Set();

    add(entry) {
        this.entries.push({ at: now(), ...entry });
        for (const reader of this.#readers) reader();
    }

    // Resolves with the first value that is not undefined, of `look` at the entries.
    async find(what, look) {
        const { promise, resolve, reject } = Promise.withResolvers();
        const reader = () => {
            const found = look(this.entries);
            if (found !== undefined) resolve(found);
        };
        const late = () => reject(new Error(`no ${what} among ${this.entries.length}`));
        const timer = setTimeout(late, PATIENCE_MS);
        this.#readers.add(reader);
        reader();
        try {
            return await promise;
        } finally {
            clearTimeout(timer);
            this.#readers.delete(reader);
        }
    }
}

function prepare(element) {
    if ("socket" in query) {
        // As in a browser that has no WebTransport.
        delete globalThis.WebTransport;
    } else {
        // A fallback would hide what WebTransport could not do.
        element.connection.websocket = { enabled: false };
    }
    element.setAttribute("url", query.url);
    element.setAttribute("name", query.name);
    document.body.append(element);
    element.connection.status.subscribe((status) => note(`connection ${status}`));
    return element;
}

function publisher() {
    const element = document.createElement("moq-publish");
    const { video, audio, enabled } = element.broadcast;
    const { established } = element.connection;
    const { codec, pixels } = query;
    video.hd.config.set({ codec, maxPixels: pixels && Number(pixels) });
    element.toggleAttribute("simulcast", "simulcast" in query);
    prepare(element);
    element.setAttribute("source", "camera");

    const states = new Journal();
    const needed = [enabled, established, video.catalog, audio.catalog];
    const look = () => states.add({ live: needed.every((signal) => signal.peek()) });
    for (const signal of needed) signal.subscribe(look);

    // The moment at which the page had a picture and a sound to publish, and somebody to tell.
    const onAir = () => states.find("broadcast", (all) => all.find(({ live }) => live)?.at);
    return { ...controls(element), onAir };
}

function player() {
    const element = document.createElement("moq-watch");
    element.append(document.createElement("canvas"));
    const [painted, heard] = [new Journal(), new Journal()];
    const { frame, timestamp } = element.renderer.out;
    timestamp.subscribe((captured) => {
        if (!painted.entries.length) note("the first picture");
        if (captured !== undefined) painted.add({ captured, width: frame.peek().codedWidth });
    });
    // Where the loudspeaker is, which stands still while there is nothing to play.
    element.audio.out.timestamp.subscribe((captured) => heard.add({ captured }));
    element.broadcast.out.status.subscribe((status) => note(`broadcast ${status}`));
    prepare(element);

    // Those of the page that was opened at `origin`, from `since` on: a page stamps what it captures
    // by its own clock, so what another page captured seems to come from the future, or long ago.
    const captured = (origin, since) => (entry) => {
        const moment = origin + entry.captured;
        return since <= moment && moment <= entry.at + CLOCKS_AGREE_MS;
    };

    // The moment of the first picture of that origin that was captured since then.
    const paints = (origin, since, width) =>
        painted.find(`picture captured since ${since}`, (all) => {
            const sought = captured(origin, since);
            return all.find((entry) => (!width || entry.width === width) && sought(entry))?.at;
        });

    // The same of sounds.
    const hears = (origin, since) =>
        heard.find(`sound captured since ${since}`, (all) => {
            return all.find(captured(origin, since))?.at;
        });

    // The age of the oldest picture that was painted since then, when it was painted.
    const oldest = (origin, since) => {
        const later = painted.entries.filter(({ at }) => at >= since);
        return Math.max(0, ...later.map((entry) => entry.at - (origin + entry.captured)));
    };

    // Resolves when so many pictures were painted within so many seconds.
    const smooth = (pictures, seconds) =>
        painted.find(`${pictures} pictures within ${seconds} s`, (all) => {
            if (all.length < pictures) return undefined;
            return all.at(-1).at - all.at(-pictures).at <= seconds * 1000 ? all.at(-1).at : undefined;
        });

    const target = (name) => {
        element.controls.target.update((target) => ({ ...target, name }));
        return now();
    };
    return { ...controls(element), paints, hears, oldest, smooth, target };
}

function controls(element) {
    return {
        origin: () => performance.timeOrigin,
        // Sets an attribute or removes it, as a button does, and tells when.
        set: (name, on) => {
            element.toggleAttribute(name, on);
            return now();
        },
    };
}

note("begins");
globalThis.stage = query.role === "publisher" ? publisher() : player();
