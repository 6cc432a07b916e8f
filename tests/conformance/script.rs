//! What two programs do to each other, drawn from a seed.
//!
//! Nothing in a script depends on how long a byte is on its way: where one program must not act
//! before something has arrived, it waits for that.

/// What a program does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write(u64),
    /// One byte, `MSG_OOB`.
    Urgent,
    /// Writes until nothing more is taken.
    Fill,
    /// So many bytes, or all there are to the end.
    Read(u64),
    /// To the end, at most `piece` bytes at once, with a pause after each.
    ReadAll {
        piece: usize,
        pause_ms: u64,
    },
    /// Waits until so much can be read, and leaves it unread.
    Arrived(usize),
    /// Waits until the connection is broken, without reading.
    Watch,
    Pause(u64),
    Shutdown,
    /// An end, or a reset if something is unread.
    Close,
    /// A reset, whatever is on the way (`SO_LINGER` 0).
    Reset,
}

/// The steps of the program and of its destination.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// How it ends.
    pub(crate) what: &'static str,
    pub(crate) steps: [Vec<Step>; 2],
}

/// SplitMix64 (Steele et al., 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Of any order of magnitude up to 2^`bits`.
    fn size(&mut self, bits: u64) -> u64 {
        let most = 1 << (1 + self.below(bits));
        1 + self.below(most)
    }
}

/// What fits the smallest buffers: a reset that comes after it cuts nothing off.
const FITS_BITS: u64 = 14;

impl Script {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut drawing =
            Drawing { steps: [Vec::new(), Vec::new()], random: Random(random.next()) };
        for _ in 0..random.below(4) {
            drawing.exchange();
        }
        let what = drawing.end();
        Self { seed, what, steps: drawing.steps }
    }
}

struct Drawing {
    steps: [Vec<Step>; 2],
    random: Random,
}

impl Drawing {
    /// One speaks and the other listens, or both speak before they listen.
    fn exchange(&mut self) {
        let first = self.random.below(2) as usize;
        let bits = if self.random.chance(15) { 20 } else { 15 };
        let bytes = self.write(first, bits);
        if self.random.chance(30) {
            let back = self.write(1 - first, FITS_BITS);
            self.steps[first].push(Step::Read(back));
        }
        self.pause(1 - first);
        self.steps[1 - first].push(Step::Read(bytes));
        // Only now it is certain that a reset that follows cuts off nothing of it.
        self.steps[1 - first].push(Step::Write(1));
        self.steps[first].push(Step::Read(1));
    }

    /// Writes something, in one piece or several; how much.
    fn write(&mut self, end: usize, bits: u64) -> u64 {
        let mut bytes = 0;
        for _ in 0..1 + self.random.below(3) {
            let piece = self.random.size(bits);
            self.steps[end].push(Step::Write(piece));
            bytes += piece;
            if self.random.chance(20) {
                self.steps[end].push(Step::Urgent);
                bytes += 1;
            }
            self.pause(end);
        }
        bytes
    }

    /// As `write`, without what would stop a look at it.
    fn write_plainly(&mut self, end: usize) -> u64 {
        let bytes = self.random.size(FITS_BITS);
        self.steps[end].push(Step::Write(bytes));
        bytes
    }

    fn pause(&mut self, end: usize) {
        if self.random.chance(20) {
            let ms = 1 + self.random.below(40);
            self.steps[end].push(Step::Pause(ms));
        }
    }

    fn read_all(&mut self, end: usize, slow: bool) {
        let step = match slow && self.random.chance(50) {
            true => {
                let piece = 1 << (10 + self.random.below(5));
                Step::ReadAll { piece, pause_ms: 1 + self.random.below(4) }
            }
            false => Step::ReadAll { piece: 1 << 16, pause_ms: 0 },
        };
        self.steps[end].push(step);
    }

    /// How it ends: which of the two does it is drawn as well.
    fn end(&mut self) -> &'static str {
        let one = self.random.below(2) as usize;
        let other = 1 - one;
        let kind = self.random.below(14);
        match kind {
            0..3 => self.in_order(one, kind),
            3..6 => self.reset_after_data(one, kind),
            6..8 => self.unread(one, kind),
            8 => {
                let upload = (1 << 19) + self.random.below(8 << 20);
                self.steps[other].push(Step::Write(upload));
                self.read_all(other, false);
                let read = self.random.size(12);
                self.steps[one].extend([Step::Read(read), Step::Arrived(1)]);
                self.write(one, FITS_BITS);
                self.steps[one].push(Step::Close);
                "a refused upload"
            }
            9 | 10 => self.stuck(one, kind == 9),
            11 => {
                self.steps[one].push(Step::Close);
                self.read_all(other, false);
                // What is written to who has gone is answered with a reset.
                self.steps[other].extend([Step::Write(1), Step::Watch]);
                "written to after its end"
            }
            12 => {
                // Half-closed before, by the one that is left.
                self.write(other, FITS_BITS);
                self.steps[other].push(Step::Shutdown);
                self.read_all(one, false);
                self.write(one, FITS_BITS);
                self.steps[one].push(Step::Reset);
                self.pause(other);
                self.read_all(other, true);
                "a reset after the other's half-close"
            }
            _ => {
                // Half-closed, and the answer is not wanted.
                self.steps[one].push(Step::Shutdown);
                self.read_all(other, false);
                let answer = self.write_plainly(other);
                self.steps[one].extend([Step::Arrived(answer as usize), Step::Close]);
                self.steps[other].push(Step::Watch);
                "an answer that stays unread"
            }
        }
    }

    fn in_order(&mut self, one: usize, kind: u64) -> &'static str {
        let other = 1 - one;
        match kind {
            0 => {
                self.write(one, 20);
                self.steps[one].push(Step::Shutdown);
                self.read_all(other, true);
                self.write(other, 20);
                self.steps[other].push(Step::Close);
                self.read_all(one, true);
                "question and answer"
            }
            1 => {
                let bytes = (1 << 18) + self.random.below(3 << 20);
                self.steps[one].extend([Step::Write(bytes), Step::Close]);
                let pause = if self.random.chance(30) { 1_500 } else { 10 };
                self.steps[other].push(Step::Pause(pause));
                self.read_all(other, false);
                "much, read late"
            }
            _ => {
                // The end overtakes nothing, and leaves the other direction alone.
                self.steps[one].push(Step::Shutdown);
                self.read_all(other, false);
                let bytes = self.write(other, 20);
                self.steps[one].push(Step::Read(bytes));
                self.steps[other].push(Step::Close);
                self.read_all(one, false);
                "only heard from one side"
            }
        }
    }

    fn reset_after_data(&mut self, one: usize, kind: u64) -> &'static str {
        let other = 1 - one;
        self.write(one, FITS_BITS);
        if kind == 5 {
            return self.reset_after_half_close(one);
        }
        self.steps[one].push(Step::Reset);
        match self.random.below(3) {
            0 => self.steps[other].push(Step::Pause(1_300)),
            1 => self.steps[other].push(Step::Watch),
            _ => {}
        }
        self.read_all(other, true);
        "a reset after data"
    }

    fn reset_after_half_close(&mut self, one: usize) -> &'static str {
        let other = 1 - one;
        self.steps[one].push(Step::Shutdown);
        if self.random.chance(50) {
            // The end is read, and only then there is a reset.
            self.read_all(other, true);
            self.steps[other].push(Step::Write(1));
            self.steps[one].push(Step::Read(1));
            self.pause(one);
            self.steps[one].push(Step::Reset);
            self.steps[other].push(Step::Watch);
        } else {
            // A kernel under load drops an end that it has not sent yet: whether there was one is
            // not certain, what was written before is.
            self.pause(one);
            self.steps[one].push(Step::Reset);
            self.steps[other].push(Step::Watch);
            self.read_all(other, true);
        }
        "a reset after a half-close"
    }

    /// One leaves without having read what has come.
    fn unread(&mut self, one: usize, kind: u64) -> &'static str {
        let other = 1 - one;
        let bytes = self.write_plainly(other);
        self.steps[one].push(Step::Arrived(bytes as usize));
        let read = self.random.below(bytes);
        self.steps[one].push(Step::Read(read));
        if kind == 6 {
            self.write(one, FITS_BITS);
        }
        self.pause(one);
        self.steps[one].push(Step::Close);
        self.pause(other);
        self.read_all(other, true);
        "closed with something unread"
    }

    /// One leaves while all buffers towards the other are full, and maybe those from it.
    fn stuck(&mut self, one: usize, both: bool) -> &'static str {
        let other = 1 - one;
        if both {
            self.steps[other].push(Step::Fill);
        }
        self.steps[one].push(Step::Fill);
        if self.random.chance(40) {
            self.steps[one].push(Step::Shutdown);
        }
        self.steps[one].push(Step::Reset);
        self.steps[other].push(Step::Watch);
        self.read_all(other, false);
        "left with all buffers full"
    }
}
