// Node's half of the network guard: refuses every name look-up and every connection beyond 127.0.0.1.
//
// Belongs here: what `network_guard/sitecustomize.py` does for Python, loaded with `node --require`. Does not belong
// here: anything about a vendor. No name is ever looked up, not even localhost: base URLs are addresses.
"use strict";

const dns = require("node:dns");
const fs = require("node:fs");
const net = require("node:net");

function refuse(event, host) {
  const file = process.env.ANALYTICS_PLATFORM_TESTS_REFUSED;
  if (file) {
    fs.appendFileSync(file, `node ${event} ${host} (pid ${process.pid})\n`);
  }
  return new Error(`the test suite refuses ${event} beyond loopback: ${host}`);
}

dns.lookup = (host, options, callback) => (callback ?? options)(refuse("lookup", host));
dns.promises.lookup = (host) => Promise.reject(refuse("lookup", host));
for (const name of Object.keys(dns).filter((name) => name.startsWith("resolve"))) {
  dns[name] = (host, ...rest) => rest.at(-1)(refuse(name, host));
}

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function guarded(...args) {
  // Node hands its own callers' arguments on as one array: [options, callback].
  const options = Array.isArray(args[0]) ? args[0][0] : typeof args[0] === "object" ? args[0] : { host: args[1] };
  const host = options.host ?? "localhost";
  if (!options.path && host !== "127.0.0.1") {
    throw refuse("connect", host);
  }
  return connect.apply(this, args);
};
