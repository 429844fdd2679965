// Exact soft-optimal policies in the browser. The first part solves finite MDPs, the second names two of them, the third draws.
"use strict";

const Playground = (() => {
    // --- Exact solutions: soft value iteration as in sb3_softac/tabular/equations.py, each state at once using the new values

    // An MDP has nStates, nActions, terminal [s], initial [s], rewards [s * nActions + a] and a sparse matrix with the same
    // rows: the successors of row i are targets[k] with probabilities[k], starts[i] <= k < starts[i + 1].
    // weights [a] are 1, or the areas that actions stand for where sums over actions approximate integrals.

    function softQ(mdp, v, discount, s, q) {
        const {nActions, rewards, starts, targets, probabilities} = mdp;
        for (let a = 0, i = s * nActions; a < nActions; a++, i++) {
            let next = 0;
            for (let k = starts[i]; k < starts[i + 1]; k++) next += probabilities[k] * v[targets[k]];
            q[a] = rewards[i] + discount * next;
        }
    }

    function softValue(q, weights, temperature) {
        let largest = -Infinity, sum = 0;
        for (const value of q) if (value > largest) largest = value; // without it exp overflows
        for (let a = 0; a < q.length; a++) sum += weights[a] * Math.exp((q[a] - largest) / temperature);
        return largest + temperature * Math.log(sum);
    }

    // Call update(s), which returns the new value of a state, in all states, there and back, until the values are known to 1e-8
    // or to rounding. A generator, so that a page can draw in between.
    function* iterate(mdp, values, discount, update) {
        const changes = new Float64Array(mdp.nStates), live = [...changes.keys()].filter(s => !mdp.terminal[s]);
        for (let known = NaN; ; ) {
            const before = values.slice();
            let change = 0, largest = 0, product = 0, square = 0;
            for (const s of live) values[s] = update(s);
            for (let i = live.length - 1; i >= 0; i--) {
                const s = live[i], value = update(s);
                change = Math.max(change, Math.abs(value - values[s]));
                largest = Math.max(largest, Math.abs(value));
                values[s] = value;
            }
            if (!(discount * change > (1 - discount) * 1e-8 + 1e-14 * largest)) return; // also if it is not a number
            for (const s of live) {
                const difference = values[s] - before[s];
                product += changes[s] * difference;
                square += changes[s] ** 2;
                changes[s] = difference;
            }
            // Once the changes shrink by the same factor from round to round, all that follow are a geometric series
            const factor = product / square, steady = Math.abs(factor - known) < 0.1 * (1 - factor);
            if (steady) for (const s of live) values[s] += factor / (1 - factor) * changes[s];
            known = steady ? NaN : factor;
            yield;
        }
    }

    function* valueIteration(mdp, temperature, discount, v) {
        const q = new Float64Array(mdp.nActions);
        yield* iterate(mdp, v, discount, s => {
            softQ(mdp, v, discount, s, q);
            return softValue(q, mdp.weights, temperature);
        });
    }

    function policyAt(mdp, temperature, discount, v, s) {
        const q = new Float64Array(mdp.nActions);
        softQ(mdp, v, discount, s, q);
        const value = softValue(q, mdp.weights, temperature);
        return q.map((each, a) => mdp.weights[a] * Math.exp((each - value) / temperature));
    }

    // Soft values, policy, and the parts of v = return + temperature * entropy in the start state. The given values are improved
    // in place.
    function* solving(mdp, temperature, discount, v) {
        yield* valueIteration(mdp, temperature, discount, v);
        const {nStates, nActions, terminal, initial, rewards, starts, targets, probabilities} = mdp;
        const pi = new Float64Array(nStates * nActions), returns = new Float64Array(nStates);
        for (let s = 0; s < nStates; s++) pi.set(policyAt(mdp, temperature, discount, v, s), s * nActions);
        yield* iterate(mdp, returns, discount, s => {
            let sum = 0;
            for (let i = s * nActions; i < (s + 1) * nActions; i++) {
                if (pi[i] === 0) continue;
                let next = 0;
                for (let k = starts[i]; k < starts[i + 1]; k++) next += probabilities[k] * returns[targets[k]];
                sum += pi[i] * (rewards[i] + discount * next);
            }
            return sum;
        });
        const atStart = values => initial.reduce((sum, p, s) => sum + p * values[s], 0);
        const value = atStart(v), reward = atStart(returns);
        return {v, pi, value, return: reward, entropy: (value - reward) / temperature};
    }

    function solve(mdp, temperature, discount) {
        const work = solving(mdp, temperature, discount, new Float64Array(mdp.nStates));
        for (;;) {
            const {done, value} = work.next();
            if (done) return value;
        }
    }

    function reachable(mdp) {
        const seen = new Uint8Array(mdp.nStates), waiting = [];
        const visit = s => { if (!seen[s]) { seen[s] = 1; waiting.push(s); } };
        mdp.initial.forEach((p, s) => { if (p > 0) visit(s); });
        while (waiting.length) {
            const s = waiting.pop();
            for (let k = mdp.starts[s * mdp.nActions]; k < mdp.starts[(s + 1) * mdp.nActions]; k++)
                if (mdp.probabilities[k] > 0) visit(mdp.targets[k]);
        }
        return seen;
    }

    function randomNumbers(seed) { // mulberry32: the same settings show the same paths
        return () => {
            seed = (seed + 0x6D2B79F5) | 0;
            let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
            t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
            return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
        };
    }

    function samplePath(mdp, pi, maxSteps, random) {
        const draw = (p, from = 0, to = p.length) => {
            let left = random();
            for (let i = from; i < to - 1; i++) if ((left -= p[i]) < 0) return i;
            return to - 1;
        };
        const path = [draw(mdp.initial)];
        for (let s = path[0]; path.length <= maxSteps && !mdp.terminal[s]; path.push(s)) {
            const first = s * mdp.nActions, i = draw(pi, first, first + mdp.nActions);
            s = mdp.targets[draw(mdp.probabilities, mdp.starts[i], mdp.starts[i + 1])];
        }
        return path;
    }

    // --- Two tasks on grids of columns x rows cells; the state is the number of the cell, from the top left on

    // move(s, a) returns the next state and the reward of an action
    function deterministic(nStates, weights, terminal, start, move) {
        const n = nStates * weights.length, targets = new Int32Array(n), rewards = new Float64Array(n);
        for (let s = 0, i = 0; s < nStates; s++)
            for (let a = 0; a < weights.length; a++, i++) [targets[i], rewards[i]] = terminal[s] ? [s, 0] : move(s, a);
        const initial = new Float64Array(nStates);
        initial[start] = 1;
        const starts = Int32Array.from({length: n + 1}, (_, i) => i), probabilities = new Float64Array(n).fill(1);
        return {nStates, nActions: weights.length, weights, terminal, initial, rewards, starts, targets, probabilities};
    }

    function gridWorld() {
        const map = ["..........", "..........", "...###....", "S..###...G", "...###....", "..........", ".XXXXXXXX."];
        const cells = [...map.join("")], columns = map[0].length, find = mark => [...cells.keys()].filter(s => cells[s] === mark);
        const [start] = find("S"), goals = find("G"), pits = find("X");
        const directions = [[1, 0], [0, 1], [-1, 0], [0, -1]];
        return {
            name: "Grid world",
            about: "From the left to the goal on the right. A step costs 1, a pit 10 more; a pit or the goal ends the episode.",
            actionNames: ["right", "down", "left", "up"],
            describe: s => `column ${s % columns + 1}, row ${Math.floor(s / columns) + 1}`,
            columns, rows: map.length, start, goals, pits, directions, paths: 15, maxSteps: 60,
            walls: find("#"), wallRadius: 0,
            temperature: [0.05, 5, 0.5], discount: 0.95, goalReward: [0, 20, 10],
            build({goalReward, walls}) {
                const terminal = Uint8Array.from(cells, mark => mark === "G" || mark === "X" ? 1 : 0);
                return deterministic(cells.length, [1, 1, 1, 1], terminal, start, (s, a) => {
                    const x = s % columns + directions[a][0], y = Math.floor(s / columns) + directions[a][1];
                    const inside = x >= 0 && x < columns && y >= 0 && y < map.length && !walls.includes(y * columns + x);
                    const next = inside ? y * columns + x : s;
                    return [next, -1 + (cells[next] === "G" ? goalReward : cells[next] === "X" ? -10 : 0)];
                });
            },
        };
    }

    // MultiGoal-v0 on positions and actions that are multiples of 1/3; the sums over actions are trapezoid rules
    function multiGoal() {
        const half = 21, columns = 2 * half + 1, middle = half * columns + half, wallRadius = 0.6;
        const place = s => [s % columns - half, half - Math.floor(s / columns)]; // in thirds, from the middle
        const between = (s, t) => ((place(s)[0] - place(t)[0]) ** 2 + (place(s)[1] - place(t)[1]) ** 2) / 9;
        const goals = [15, -15, -15 * columns, 15 * columns].map(step => middle + step); // east, west, north, south
        const cells = [...Array(columns * columns).keys()];
        const distances = cells.map(s => Math.min(...goals.map(goal => between(s, goal)))); // squares
        const thirds = [-3, -2, -1, 0, 1, 2, 3], actions = thirds.flatMap(y => thirds.map(x => [x, -y]));
        const weights = actions.map(([x, y]) => (Math.abs(x) === 3 ? 0.5 : 1) * (Math.abs(y) === 3 ? 0.5 : 1) / 9);
        const blocked = (from, to, walls) => walls.some(wall => { // as by MultiGoal's obstacles
            const [x, y] = place(from), [dx, dy] = [place(to)[0] - x, place(to)[1] - y];
            const [cx, cy] = [place(wall)[0] - x, place(wall)[1] - y];
            const along = Math.min(1, Math.max(0, (cx * dx + cy * dy) / Math.max(dx * dx + dy * dy, 1e-12)));
            return ((cx - along * dx) ** 2 + (cy - along * dy) ** 2) / 9 <= wallRadius ** 2;
        });
        const clip = n => Math.min(columns - 1, Math.max(0, n));
        return {
            name: "MultiGoal",
            about: "A point in the plane with four goals. Long moves and the distance to the nearest goal cost; a goal pays 10.",
            describe: s => `x ${shown(place(s)[0] / 3)}, y ${shown(place(s)[1] / 3)}`,
            columns, rows: columns, start: middle, pits: [], directions: null, paths: 40, maxSteps: 30,
            goals, walls: [], wallRadius: 3 * wallRadius,
            temperature: [2, 50, 10], discount: 0.99, goalReward: [-30, 50, 10],
            build({goalReward, walls}) {
                const terminal = Uint8Array.from(distances, distance => distance < 1 ? 1 : 0);
                return deterministic(cells.length, weights, terminal, middle, (s, a) => {
                    const [dx, dy] = actions[a];
                    const to = clip(Math.floor(s / columns) - dy) * columns + clip(s % columns + dx);
                    const next = walls.length && blocked(s, to, walls) ? s : to;
                    const paid = !terminal[next] ? 0 : between(next, goals[0]) < 1 ? goalReward : 10;
                    return [next, -30 * (dx * dx + dy * dy) / 9 - distances[next] + paid];
                });
            },
        };
    }

    // The task of a page that sb3_softac/tabular/playground.py has written
    function fromTables(tables) {
        const {nStates, nActions, terminal, initial, rewards, starts, targets, probabilities} = tables;
        const mdp = {
            nStates, nActions, terminal: Uint8Array.from(terminal), weights: new Array(nActions).fill(1),
            initial: Float64Array.from(initial), rewards: Float64Array.from(rewards), starts: Int32Array.from(starts),
            targets: Int32Array.from(targets), probabilities: Float64Array.from(probabilities),
        };
        return {
            ...tables, rows: Math.ceil(nStates / tables.columns), start: initial.indexOf(Math.max(...initial)), goals: [], pits: [],
            walls: null, wallRadius: 0, paths: 15, maxSteps: 100, build: () => mdp,
        };
    }

    // --- The page

    const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
    const GOAL_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]; // as in the figures
    const CURVE_POINTS = 12, STEP_MS = 60;
    const stillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
    const shown = (number, digits = 2) => number.toFixed(digits).replace("-", "\u2212");

    function tint(part) {
        const at = Math.min(0.9999, Math.max(0, part)) * (VIRIDIS.length - 1), low = Math.floor(at);
        return VIRIDIS[low].map((channel, i) => channel + (at - low) * (VIRIDIS[low + 1][i] - channel));
    }

    function make(tag, properties = {}, ...children) {
        const node = Object.assign(document.createElement(tag), properties);
        node.append(...children);
        return node;
    }

    // A context whose units are CSS pixels, cleared, with the colour of the text around it
    function pen(canvas, aspect) {
        const width = canvas.clientWidth, height = width * aspect, scale = window.devicePixelRatio || 1;
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(height * scale);
        const context = canvas.getContext("2d");
        context.scale(scale, scale);
        context.fillStyle = context.strokeStyle = getComputedStyle(canvas).color;
        context.font = "12px system-ui, sans-serif";
        return {context, width, height};
    }

    function drawImage(context, columns, rows, colour, x, y, width, height, smooth) {
        const small = make("canvas", {width: columns, height: rows}), inside = small.getContext("2d");
        const image = inside.createImageData(columns, rows);
        for (let i = 0; i < columns * rows; i++) image.data.set(colour(i), 4 * i);
        inside.putImageData(image, 0, 0);
        context.imageSmoothingEnabled = smooth;
        context.drawImage(small, x, y, width, height);
    }

    class View {
        constructor(root, tasks, learned) {
            this.learned = learned;
            this.map = make("canvas", {className: "playground-map", tabIndex: 0});
            this.map.setAttribute("role", "application");
            this.curve = make("canvas", {className: "playground-curve"});
            this.curve.setAttribute("role", "img");
            this.results = make("p", {className: "playground-results"});
            this.about = make("p");
            this.markText = make("p", {className: "playground-mark"});
            for (const live of [this.results, this.markText]) live.setAttribute("aria-live", "polite");
            this.sliders = make("div");
            this.wallButton = this.button("Wall at the mark", () => this.toggleWall());
            const again = this.button("New paths", () => { this.seed++; this.change(); });
            const reset = this.button("Reset", () => this.choose(this.task));
            const choices = make("fieldset", {className: "playground-tasks"}, make("legend", {}, "Task"));
            for (const task of tasks) {
                const radio = make("input", {type: "radio", name: "playground-task", checked: task === tasks[0]});
                radio.addEventListener("change", () => this.choose(task));
                choices.append(make("label", {}, radio, task.name));
            }
            this.panels = make("div", {className: "playground-learned"});
            const buttons = make("div", {className: "playground-buttons"}, this.wallButton, again, reset);
            const side = make("div", {}, this.sliders, buttons, this.results, this.curve);
            const both = make("div", {className: "playground-both"}, make("div", {}, this.map, this.markText), side);
            root.replaceChildren(...(tasks.length > 1 ? [choices] : []), this.about, both, this.panels);
            this.listen();
            this.choose(tasks[0]);
        }

        button(text, action) {
            const button = make("button", {type: "button"}, text);
            button.addEventListener("click", action);
            return button;
        }

        listen() {
            const cellAt = event => {
                const box = this.map.getBoundingClientRect(), {columns, rows} = this.task;
                const x = Math.floor((event.clientX - box.left) / box.width * columns);
                const y = Math.floor((event.clientY - box.top) / box.height * rows);
                return Math.min(rows - 1, Math.max(0, y)) * columns + Math.min(columns - 1, Math.max(0, x));
            };
            let dragged = null;
            this.map.addEventListener("pointerdown", event => {
                const cell = cellAt(event);
                dragged = this.wallAt(cell) ?? null;
                this.moveMark(cell);
            });
            this.map.addEventListener("pointermove", event => {
                const cell = cellAt(event);
                if (dragged === null || cell === dragged || !this.isFree(cell)) return;
                this.settings.walls = this.settings.walls.map(wall => wall === dragged ? cell : wall);
                dragged = this.mark = cell;
                this.change();
            });
            for (const name of ["pointerup", "pointercancel", "pointerleave"])
                this.map.addEventListener(name, () => { dragged = null; });
            this.map.addEventListener("keydown", event => {
                const {columns, rows} = this.task, x = this.mark % columns, y = Math.floor(this.mark / columns);
                const to = {ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1]}[event.key];
                if (to && to[0] >= 0 && to[0] < columns && to[1] >= 0 && to[1] < rows) this.moveMark(to[1] * columns + to[0]);
                else if (event.key === "Enter" || event.key === " ") this.toggleWall();
                if (to || event.key === "Enter" || event.key === " ") event.preventDefault();
            });
            new ResizeObserver(() => this.request()).observe(this.map);
            new MutationObserver(() => this.request()).observe(document.body, {attributes: true}); // light or dark
            for (const query of ["(prefers-color-scheme: dark)", "(prefers-reduced-motion: reduce)"])
                matchMedia(query).addEventListener("change", () => this.request());
        }

        choose(task) {
            this.task = task;
            this.mark = task.start;
            this.seed = 1;
            this.solution = this.curveKey = null;
            this.settings = {walls: task.walls && [...task.walls]};
            this.about.textContent = task.about;
            this.wallButton.hidden = !task.walls;
            const keys = `Arrow keys move the mark${task.walls ? ", Enter puts a wall there or takes it away" : ""}.`;
            this.map.setAttribute("aria-label", `${task.name}: soft values and sampled paths. ${keys}`);
            const [low, high, temperature] = task.temperature;
            const position = t => 200 * Math.log(t / low) / Math.log(high / low);
            const fromPosition = p => Number((low * (high / low) ** (p / 200)).toPrecision(2));
            this.sliders.replaceChildren();
            this.addSlider("Temperature", "temperature", [0, 200, 1], position(temperature), fromPosition);
            this.addSlider("Discount", "discount", [0.5, 0.99, 0.01], task.discount, Number);
            if (task.goalReward) {
                const [least, most, reward] = task.goalReward;
                this.addSlider("Reward of the goal on the right", "goalReward", [least, most, 1], reward, Number);
            }
            this.v = new Float64Array(task.build(this.settings).nStates);
            this.showLearned();
            this.change();
        }

        addSlider(name, key, [min, max, step], value, read) {
            const output = make("output"), input = make("input", {type: "range", min, max, step, value, name: key});
            const take = () => {
                this.settings[key] = read(Number(input.value));
                output.textContent = String(this.settings[key]).replace("-", "\u2212");
                input.setAttribute("aria-valuetext", output.textContent);
            };
            input.addEventListener("input", () => { take(); this.change(); });
            take();
            this.sliders.append(make("label", {}, make("span", {}, name, output), input));
        }

        wallAt(cell) {
            return this.settings.walls?.find(wall => this.distance(wall, cell) <= this.task.wallRadius);
        }

        distance(s, t) { // in cells
            const {columns} = this.task;
            return Math.hypot(s % columns - t % columns, Math.floor(s / columns) - Math.floor(t / columns));
        }

        isFree(cell) {
            const {start, goals, pits, wallRadius} = this.task;
            return [start, ...goals, ...pits].every(taken => this.distance(cell, taken) > wallRadius);
        }

        toggleWall() {
            const wall = this.wallAt(this.mark), {walls} = this.settings;
            if (!walls || (wall === undefined && !this.isFree(this.mark))) return;
            this.settings.walls = wall === undefined ? [...walls, this.mark] : walls.filter(each => each !== wall);
            this.change();
        }

        moveMark(cell) {
            this.mark = cell;
            this.describeMark();
            this.request();
        }

        // Solve again, with the values so far as the start; then the rest of the curve
        change() {
            this.work = this.compute();
            this.request();
        }

        *compute() {
            const {task, settings} = this, {temperature, discount} = settings, mdp = task.build(settings);
            const solution = yield* solving(mdp, temperature, discount, this.v);
            const random = randomNumbers(this.seed), spread = task.directions ? 0.5 : 1;
            const offset = () => spread * (random() - 0.5); // so that paths do not hide one another
            this.paths = Array.from({length: task.paths}, () => {
                const states = samplePath(mdp, solution.pi, task.maxSteps, random);
                return {states, offset: [offset(), offset()]};
            });
            Object.assign(this, {mdp, solution, seen: reachable(mdp), began: performance.now()});
            this.describeMark();
            const parts = `${shown(solution.return)} + ${temperature} \u00d7 ${shown(solution.entropy)}`;
            this.results.replaceChildren(
                make("strong", {}, `${shown(solution.value)} = ${parts}`), make("br"), "soft value = return + temperature \u00d7 entropy");
            const key = JSON.stringify([task.name, discount, settings.goalReward, settings.walls]);
            if (this.curveKey !== key) Object.assign(this, {curveKey: key, points: []});
            const [low, high] = task.temperature, v = this.v.slice();
            for (let i = this.points.length; i < CURVE_POINTS; i++) {
                const t = low * (high / low) ** (i / (CURVE_POINTS - 1));
                this.points.push({temperature: t, ...(yield* solving(mdp, t, discount, v)), v: null, pi: null});
            }
        }

        request() {
            this.pending ||= requestAnimationFrame(() => {
                this.pending = 0;
                let busy = true;
                for (const end = performance.now() + 12; busy && performance.now() < end; ) busy = !this.work.next().done;
                this.draw();
                if (busy || this.stepsShown() < this.task.maxSteps) this.request();
            });
        }

        stepsShown() {
            return stillness() ? Infinity : (performance.now() - this.began) / STEP_MS;
        }

        describeMark() {
            const {task, mark, solution, mdp, v} = this;
            if (!solution) return;
            const policy = [...solution.pi.slice(mark * mdp.nActions, (mark + 1) * mdp.nActions)];
            const names = task.actionNames ?? policy.map((_, a) => `action ${a}`);
            const probabilities = policy.length > 8 ? "" : policy.map((p, a) => `${names[a]} ${shown(p)}`).join(", ");
            const place = task.describe?.(mark) ?? `state ${mark}`;
            const acts = mark < mdp.nStates && !mdp.terminal[mark] && this.wallAt(mark) === undefined;
            const facts = acts ? `Soft value ${shown(v[mark])}. ${probabilities}` : "Nobody acts here.";
            this.markText.textContent = `Mark: ${place}. ${facts}`;
        }

        draw() {
            if (!this.solution) return;
            const {task, mdp, v, seen} = this, {columns, rows} = task;
            const {context, width, height} = pen(this.map, rows / columns), cell = width / columns;
            const colours = [...seen.keys()].filter(s => seen[s] && !mdp.terminal[s] && this.wallAt(s) === undefined);
            const values = colours.map(s => v[s]), low = Math.min(...values), high = Math.max(...values);
            const ground = new Set(colours);
            const colour = s => ground.has(s) ? [...tint((v[s] - low) / Math.max(high - low, 1e-9)), 255] : [0, 0, 0, 0];
            drawImage(context, columns, rows, colour, 0, 0, width, height, !task.directions);
            const middle = s => [(s % columns + 0.5) * cell, (Math.floor(s / columns) + 0.5) * cell];
            const disk = (s, radius, how = "fill") => {
                context.beginPath();
                context.arc(...middle(s), radius, 0, 2 * Math.PI);
                context[how]();
            };
            context.globalAlpha = 0.6;
            for (const wall of this.settings.walls ?? [])
                if (task.wallRadius) disk(wall, (task.wallRadius) * cell);
                else context.fillRect(middle(wall)[0] - cell / 2, middle(wall)[1] - cell / 2, cell, cell);
            context.globalAlpha = 1;
            context.textAlign = "center";
            context.textBaseline = "middle";
            if (task.directions) {
                const name = s => task.pits.includes(s) ? "pit" : task.goals.includes(s) ? "goal" : "end";
                for (let s = 0; s < mdp.nStates; s++) if (mdp.terminal[s]) context.fillText(name(s), ...middle(s));
                this.drawArrows(context, colours, middle, cell);
            } else {
                task.goals.forEach((goal, i) => { context.fillStyle = GOAL_COLOURS[i]; disk(goal, 6); });
            }
            this.drawPaths(context, middle, cell);
            if (!task.directions) this.drawDensity(context, middle, cell);
            const [x, y] = middle(this.mark), size = Math.max(cell, 10);
            for (const [style, lineWidth] of [["white", 4], ["black", 2]]) {
                Object.assign(context, {strokeStyle: style, lineWidth});
                context.strokeRect(x - size / 2, y - size / 2, size, size);
            }
            this.drawCurve();
        }

        drawArrows(context, states, middle, cell) {
            const {pi} = this.solution, {nActions} = this.mdp;
            for (const [style, extra] of [["rgba(0, 0, 0, 0.7)", 2], ["white", 0]]) {
                Object.assign(context, {fillStyle: style, strokeStyle: style, lineWidth: extra, lineJoin: "round"});
                for (const s of states) for (let a = 0; a < nActions; a++) {
                    const [dx, dy] = this.task.directions[a], p = pi[s * nActions + a];
                    const length = 0.46 * cell * p, wide = 0.11 * cell * Math.sqrt(p);
                    if (p < 0.02) continue;
                    const [x, y] = middle(s);
                    context.beginPath();
                    context.moveTo(x - wide * dy, y + wide * dx);
                    context.lineTo(x + length * dx, y + length * dy);
                    context.lineTo(x + wide * dy, y - wide * dx);
                    context.fill();
                    if (extra) context.stroke();
                }
            }
        }

        drawPaths(context, middle, cell) {
            const steps = this.stepsShown();
            Object.assign(context, {strokeStyle: "rgba(255, 70, 70, 0.75)", fillStyle: "#ff4646", lineWidth: 1.2, lineJoin: "round"});
            for (const {states, offset} of this.paths) {
                const points = states.slice(0, Math.floor(steps) + 2).map(s => middle(s).map((at, i) => at + offset[i] * cell));
                const last = points.length - 1, part = Math.min(1, steps - last + 1);
                if (last > 0 && part < 1)
                    points[last] = points[last].map((at, i) => (1 - part) * points[last - 1][i] + part * at);
                context.beginPath();
                points.forEach((point, i) => { // jumps are no lines
                    const jump = i > 0 && this.task.directions && this.distance(states[i - 1], states[i]) > 1;
                    context[jump ? "moveTo" : "lineTo"](...point);
                });
                context.stroke();
                context.beginPath();
                context.arc(...points[last], 2, 0, 2 * Math.PI);
                context.fill();
            }
        }

        // Where the next move leads from the mark, true to scale
        drawDensity(context, middle, cell) {
            const {pi} = this.solution, {nActions, weights, terminal} = this.mdp, side = Math.sqrt(nActions);
            if (terminal[this.mark] || this.wallAt(this.mark) !== undefined) return;
            const density = weights.map((weight, a) => pi[this.mark * nActions + a] / weight), largest = Math.max(...density);
            const [x, y] = middle(this.mark), size = side * cell;
            const colour = a => [255, 255, 255, 230 * density[a] / largest];
            drawImage(context, side, side, colour, x - size / 2, y - size / 2, size, size, true);
        }

        drawCurve() {
            const {points, solution, settings, task} = this, {context, width, height} = pen(this.curve, 0.5);
            const [low, high] = task.temperature, left = 8, right = width - 8, top = 26, bottom = height - 20;
            const x = t => left + (right - left) * Math.log(t / low) / Math.log(high / low);
            const now = {...solution, temperature: settings.temperature};
            const ink = context.strokeStyle, lines = [["return", "#0072B2", "left", left], ["entropy", "#D55E00", "right", right]];
            context.globalAlpha = 0.3;
            context.strokeRect(left, top, right - left, bottom - top);
            context.globalAlpha = 1;
            context.fillText(`temperature ${low}`, left, height - 6);
            context.textAlign = "right";
            context.fillText(String(high), right, height - 6);
            for (const [name, colour, align, at] of lines) {
                const values = [...points, now].map(point => point[name]), least = Math.min(...values), most = Math.max(...values);
                const y = value => bottom - 4 - (bottom - top - 8) * (value - least) / Math.max(most - least, 1e-9);
                Object.assign(context, {strokeStyle: colour, fillStyle: colour, lineWidth: 2, textAlign: align});
                context.setLineDash(name === "entropy" ? [5, 3] : []);
                context.beginPath();
                points.forEach(point => context.lineTo(x(point.temperature), y(point[name])));
                context.stroke();
                context.setLineDash([]);
                context.beginPath();
                context.arc(x(now.temperature), y(now[name]), 4, 0, 2 * Math.PI);
                context.fill();
                context.fillStyle = ink;
                context.fillText(`${name === "entropy" ? "- - " : "\u2014 "}${name} ${shown(least, 1)} to ${shown(most, 1)}`, at, 14);
            }
            const here = `return ${shown(now.return)}, entropy ${shown(now.entropy)} nats`;
            this.curve.setAttribute("aria-label", `Return and entropy over the temperature. At ${now.temperature}: ${here}.`);
        }

        showLearned() {
            this.panels.replaceChildren();
            if (!this.learned || this.task.directions) return;
            const {temperature, policies} = this.learned;
            this.panels.append(make("p", {}, `Learned at a temperature of ${temperature}, in TD3 without one: 50 episodes each.`));
            for (const {name, paths} of policies) {
                const canvas = make("canvas");
                canvas.setAttribute("role", "img");
                const paint = () => drawLearned(canvas, name, paths);
                new ResizeObserver(paint).observe(canvas);
                new MutationObserver(paint).observe(document.body, {attributes: true});
                matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
                this.panels.append(make("figure", {}, canvas, make("figcaption", {}, name)));
            }
        }
    }

    // Paths of points [x, y], each in the colour of the goal that is nearest to its end, and their numbers
    function drawLearned(canvas, name, paths) {
        const {context, width} = pen(canvas, 1), scale = width / 14, goals = [[5, 0], [-5, 0], [0, 5], [0, -5]];
        const place = ([x, y]) => [width / 2 + scale * x, width / 2 - scale * y];
        const nearest = paths.map(path => {
            const [x, y] = path[path.length - 1];
            return Math.abs(x) > Math.abs(y) ? (x > 0 ? 0 : 1) : (y > 0 ? 2 : 3);
        });
        const counts = goals.map((_, goal) => nearest.filter(each => each === goal).length);
        Object.assign(context, {textAlign: "center", textBaseline: "middle", lineWidth: 0.8});
        goals.forEach(([x, y], i) => context.fillText(String(counts[i]), ...place([1.24 * x, 1.24 * y])));
        paths.forEach((path, i) => {
            context.strokeStyle = GOAL_COLOURS[nearest[i]];
            context.beginPath();
            path.forEach(point => context.lineTo(...place(point)));
            context.stroke();
        });
        const [east, west, north, south] = counts;
        canvas.setAttribute("aria-label", `${name}: episodes end ${east} times in the east, ${west} west, ${north} north, ${south} south.`);
    }

    const show = () => {
        const {tables, learned} = Playground, tasks = tables ? [fromTables(tables)] : [multiGoal(), gridWorld()];
        for (const root of document.querySelectorAll(".playground")) new View(root, tasks, learned);
    };
    return {solve, gridWorld, multiGoal, fromTables, show};
})();

if (typeof module === "object") module.exports = Playground; // for the tests
else document.addEventListener("DOMContentLoaded", Playground.show);
