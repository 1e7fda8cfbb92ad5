// One client of a released version in a page or in Node, left to dial its relay again by itself: the functions
// of `stage`.

// A group of one frame, with the time at which it was written, twenty times a second.
const TRACK = "video";
const PACE_MS = 50;

// By path: when the newest frame that was read had been written, and who waits for a newer one.
const heard = new Map();

// The numbers in all frames that were read of a path, and how many connections there were.
const numbers = new Map();
let connected = 0;
const waiting = new Set();

// Calls what is given with every connection that the client makes.
async function connections(version, url, use) {
    const net = await import(`net-${version}`);
    // The oldest of the clients closes both where they come up in the same moment. In Firefox none takes the other.
    const isFirefox = globalThis.navigator?.userAgent?.includes("Firefox");
    const websocket = { enabled: isFirefox || !globalThis.WebTransport };
    const reload = new net.Connection.Reload({ url: new URL(url), enabled: true, websocket });
    reload.established.watch((connection) => {
        if (connection) connected += 1;
        if (connection) use(connection, net).catch((error) => console.log(error.stack));
    });
}

async function publish(version, url, path) {
    await connections(version, url, async (connection, net) => {
        const broadcast = new (net.Broadcast.Producer ?? net.Broadcast)();
        connection.publish(path, broadcast);
        for (;;) {
            const request = await broadcast.requested();
            if (!request) return;
            write(request.accept?.() ?? request.track, net).catch(() => {});
        }
    });
}

// Until nobody wants the track any more: then there is an exception.
async function write(track, net) {
    for (;;) {
        const payload = new TextEncoder().encode(String(Date.now()));
        const group = track.appendGroup();
        // The oldest of the clients knows no timestamps.
        const timestamp = net.Time.Timestamp?.now();
        group.writeFrame(timestamp ? { payload, timestamp } : payload);
        group.close();
        await new Promise((resolve) => setTimeout(resolve, PACE_MS));
    }
}

// Reads the track of whatever is announced.
async function watch(version, url) {
    await connections(version, url, async (connection) => {
        const announced = connection.announced();
        for (;;) {
            const event = await announced.next();
            if (!event) return;
            if (event.active) read(connection, event.path).catch(() => {});
        }
    });
}

async function read(connection, path) {
    const broadcast = connection.consume(path);
    const track = broadcast.track?.(TRACK).subscribe() ?? broadcast.subscribe(TRACK, 0);
    for (;;) {
        const frame = await track.readFrame();
        if (!frame) return;
        const number = Number(new TextDecoder().decode(frame.payload ?? frame));
        heard.set(path, number);
        if (!numbers.has(path)) numbers.set(path, []);
        numbers.get(path).push(number);
        for (const look of waiting) look();
    }
}

// Resolves when a frame of the path has come that was written after this time.
async function hears(path, since) {
    await new Promise((resolve) => {
        const look = () => {
            if (!(heard.get(path) > since)) return;
            waiting.delete(look);
            resolve();
        };
        waiting.add(look);
        look();
    });
}

// As in a browser that has none.
function forgetWebTransport() {
    delete globalThis.WebTransport;
}

// What has come of a path so far is not asked for.
async function forgets(path) {
    numbers.delete(path);
}

// By how many connections, the first and the last number of a path, and which are missing between them.
async function misses(path) {
    const read = numbers.get(path).sort((one, other) => one - other);
    const missing = [];
    read.forEach((number, at) => {
        for (let next = read[at - 1] + 1; next < number; next += 1) missing.push(next);
    });
    return `${connected} ${read[0]} ${read.at(-1)} ${missing.join(",")}`;
}

globalThis.stage = { publish, watch, hears, forgets, misses, forgetWebTransport };
