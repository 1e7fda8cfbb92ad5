// The script of a folder's page without a browser: node node.mjs FOLDER. It has what a page has and older
// versions of Node do not, as people add it: nothing of a transport but WebSocket.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";
import { serve } from "./lines.mjs";

// Answers are lines of standard output, so what the script says goes to the other one.
console.log = console.debug = console.info = console.warn = console.error;

globalThis.WebSocket ??= WebSocket;
Promise.withResolvers ??= () => {
    const parts = {};
    parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
    return parts;
};
Set.prototype.difference ??= function (other) {
    return new Set([...this].filter((member) => !other.has(member)));
};
Uint8Array.fromHex ??= (hex) => new Uint8Array(Buffer.from(hex, "hex"));
Uint8Array.prototype.toHex ??= function () {
    return Buffer.from(this.buffer, this.byteOffset, this.byteLength).toString("hex");
};

await import(pathToFileURL(join(process.argv[2], "page.js")));
await serve(process.version, (_, call) => {
    // With no word to the relay.
    if (call === "quit") setImmediate(() => process.exit());
    else return (0, eval)(`stage.${call}`);
});
process.exit();
