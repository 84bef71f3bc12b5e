// The search of Material runs in a worker, which browsers refuse to a page that was opened from a file. There this class
// takes the worker's place: it runs the script in a hidden frame, and hands its messages to and fro.
// Its name is the one by which the offline plugin knows that there is such a class, and asks no other host for one.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open(); // a document of its own, which no browser replaces later
      inside.document.write("<!doctype html><title>search</title>");
      inside.document.close();
      const load = (script) =>
        new Promise((done, failed) => {
          const element = inside.document.createElement("script");
          Object.assign(element, { src: new URL(script, document.baseURI), onload: done, onerror: failed });
          inside.document.head.append(element);
        });
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...scripts) => {
        for (const script of scripts) await load(script);
      };
      this.loaded = load(address);
    }

    postMessage(data) {
      const { contentWindow } = this.frame;
      this.loaded.then(() => contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
