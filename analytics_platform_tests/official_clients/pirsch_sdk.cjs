// Pirsch's own SDK for Node, unpatched: only `baseUrl` is ours.
//
// Belongs here: making the client and calling its methods by name. Does not belong here: what the answers should be
// (`test_pirsch_sdk.py`). `from` and `to` of a filter are made the `Date` objects the SDK's types ask for.
"use strict";

const { Client } = require("pirsch-sdk");
const { PirschWebApiClient } = require("pirsch-sdk/web-api");
const { serve } = require("./commands.cjs");

let client;

function typed(argument) {
  if (argument === null || typeof argument !== "object" || !("from" in argument && "to" in argument)) {
    return argument;
  }
  return { ...argument, from: new Date(argument.from), to: new Date(argument.to) };
}

function methods() {
  const found = new Set();
  for (let kind = Client.prototype; kind !== Object.prototype; kind = Object.getPrototypeOf(kind)) {
    Object.getOwnPropertyNames(kind).forEach((name) => found.add(name));
  }
  found.delete("constructor");
  return [...found].sort();
}

serve((call, given) => {
  switch (call) {
    case "(new)":
      client = new Client(given[0]);
      return null;
    case "(new web)":
      client = new PirschWebApiClient(given[0]);
      return null;
    case "(methods)":
      return methods();
    default:
      return client[call](...given.map(typed));
  }
});
