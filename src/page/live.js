// Replaces the parts of the page that changed. Without this script the page loads itself again every minute.
"use strict";

const events = new EventSource("/-/events");
const lost = document.getElementById("lost");

// Times arrive in UTC.
function localTimes(part) {
  for (const time of part.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleString();
  }
}

localTimes(document);
for (const part of document.querySelectorAll("[data-live]")) {
  events.addEventListener(part.id, (event) => {
    part.innerHTML = event.data;
    localTimes(part);
  });
}
events.addEventListener("title", (event) => { document.title = event.data; });
events.onopen = () => { lost.hidden = true; };
events.onerror = () => {
  lost.hidden = false;
  // The browser tries again by itself, unless the daemon refused the request.
  if (events.readyState === EventSource.CLOSED) {
    setTimeout(() => location.reload(), 60000);
  }
};
