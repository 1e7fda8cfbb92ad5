// One client in a page: what the plays in tests/browser.rs can ask of it, the functions of
// `stage`. Each resolves when it has happened. What a function tells is one line of text.

import { Broadcast, Connection, Group, Time } from "@moq/net";

// Nothing of a play is ever too old to be kept or delivered.
const LATENCY_MAX_MS = 60_000;

// The clock of the plays' timestamps.
const TIMESCALE = Time.Timescale(90_000);

let connection;
let announced;
const broadcasts = new Map();
const tracks = new Map();
let subscription;

const pin = (sha256) => (sha256 ? { serverCertificateHashes: [{ value: sha256 }] } : {});

// With a URL that begins with http: the client itself asks the relay for the hash.
async function connect(url, sha256, protocol) {
    const webtransport = { ...pin(sha256), ...(protocol ? { protocols: [protocol] } : {}) };
    // Without WebSocket: a fallback would hide what WebTransport could not do.
    const websocket = { enabled: false };
    try {
        connection = await Connection.connect(new URL(url), { webtransport, websocket });
    } catch (error) {
        // The client lists what each of its transports met with, and here it has one.
        throw error instanceof AggregateError ? error.errors[0] : error;
    }
    announced = connection.announced();
    return `${connection.transport} ${connection.version}`;
}

// As in a browser that has no WebTransport.
async function connectBySocket(url) {
    delete globalThis.WebTransport;
    connection = await Connection.connect(new URL(url), { websocket: { enabled: true } });
    announced = connection.announced();
    return `${connection.transport} ${connection.version}`;
}

// Resolves when the session is over, whoever ended it; rejects when the connection is lost.
async function closed() {
    await connection.closed;
    return "closed";
}

function leave() {
    connection.close();
}

// A broadcast with one track, announced.
function announce(path, name) {
    const broadcast = new Broadcast.Producer();
    const info = { timescale: TIMESCALE, latencyMax: LATENCY_MAX_MS };
    tracks.set(name, broadcast.createTrack(name, info));
    broadcasts.set(path, broadcast);
    connection.publish(path, broadcast);
}

function retract(path) {
    broadcasts.get(path).close();
}

// Resolves when somebody subscribes to the track.
async function wanted(name) {
    const { used } = tracks.get(name);
    while (!used.peek()) await used.changed();
}

// A whole group. Its frames are [ticks, payload in hex].
function write(name, sequence, frames) {
    const group = new Group.Producer(sequence);
    tracks.get(name).writeGroup(group);
    for (const [ticks, hex] of frames) {
        const timestamp = new Time.Timestamp(ticks, TIMESCALE);
        group.writeFrame({ payload: Uint8Array.fromHex(hex), timestamp });
    }
    group.close();
}

function send(name, ticks, hex) {
    const timestamp = new Time.Timestamp(ticks, TIMESCALE);
    return tracks.get(name).appendDatagram(timestamp, Uint8Array.fromHex(hex));
}

function finish(name) {
    tracks.get(name).close();
}

// The next announcement.
async function hear() {
    const event = await announced.next();
    return event ? `${event.path} ${event.active ? "up" : "down"}` : "end";
}

function subscribe(path, name) {
    const options = { latencyMax: LATENCY_MAX_MS };
    subscription = connection.consume(path).track(name).subscribe(options);
}

// Resolves when the relay has answered with what it knows of the track; rejects when it refuses.
async function info() {
    const { timescale, latencyMax } = await subscription.info();
    return `${timescale} ${latencyMax}`;
}

function unsubscribe() {
    subscription.close();
}

// The next group with all of its frames, or the end of the track.
async function group() {
    const group = await subscription.recvGroup();
    return group ? await read(group) : "end";
}

async function fetchGroup(path, name, sequence) {
    return await read(await connection.consume(path).track(name).fetchGroup(sequence));
}

async function read(group) {
    const words = [group.sequence];
    for (;;) {
        const frame = await group.readFrame();
        if (!frame) return words.join(" ");
        words.push(`${stamp(frame.timestamp)}:${frame.payload.toHex()}`);
    }
}

async function receive() {
    const datagram = await subscription.recvDatagram();
    if (!datagram) return "end";
    const { sequence, timestamp, payload } = datagram;
    return `${sequence} ${stamp(timestamp)}:${payload.toHex()}`;
}

const stamp = (timestamp) => `${timestamp.value}/${timestamp.scale}`;

// The browser's own WebTransport without any client above it.

let raw;

async function rawConnect(url, sha256, protocols) {
    const value = Uint8Array.fromHex(sha256);
    const serverCertificateHashes = [{ algorithm: "sha-256", value }];
    raw = new WebTransport(url, { serverCertificateHashes, protocols });
    raw.closed.catch(() => {});
    await raw.ready;
    return raw.protocol;
}

// A unidirectional stream with these bytes and its end.
async function rawSend(hex) {
    const writer = (await raw.createUnidirectionalStream()).getWriter();
    await writer.write(Uint8Array.fromHex(hex));
    await writer.close();
}

function rawClose(closeCode, reason) {
    raw.close({ closeCode, reason });
}

async function rawClosed() {
    const { closeCode, reason } = await raw.closed;
    return `${closeCode} ${reason}`;
}

globalThis.stage = {
    connect, connectBySocket, closed, leave,
    announce, retract, wanted, write, send, finish,
    hear, subscribe, info, unsubscribe, group, fetchGroup, receive,
    rawConnect, rawSend, rawClose, rawClosed,
};
