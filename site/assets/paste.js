// The button below a claim copies its sentence with its address, as Markdown for a forum's answer.
for (const button of document.querySelectorAll("button.paste"))
  button.addEventListener("click", async () => {
    const section = document.getElementById(button.dataset.claim);
    const heading = section.querySelector("h2").cloneNode(true);
    heading.querySelector(".headerlink").remove();
    const address = new URL(`#${button.dataset.claim}`, location.href);
    await navigator.clipboard.writeText(`${heading.textContent.trim()} ([proof](${address}))`);
    button.textContent = "Copied";
  });
