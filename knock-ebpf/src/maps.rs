//! The maps, and the environment that they make up.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr::NonNull,
};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    macros::btf_map,
};
use knock_common::{
    Address, Env, Stat,
    answer::Answer,
    blocked::Blocked,
    env::{Bucket, Table, Word},
    event::Event,
    fwknop,
    hmac::HmacScratch,
    layout::{
        ALLOW_MAX, BLOCK_MAX, BLOCKED_MAX, BUCKETS, CLAIMS as CLAIM_SLOTS, Config,
        DOOR_ENTRIES_MAX, DOORS_MAX, DoorEntry, EVENTS_BYTES, EdgeKey, FLOWS_MAX, FROM_MAX,
        Features, FlowKey, FromKey, GrantKey, LOCKOUT_BUCKETS, LOCKOUTS_MAX, NODES_MAX, Node,
        OtpEntry, PORT_RULES, PRESENCE_SLOTS, PROGRESS_MAX, PortRule, ProgressKey, TARGETS_MAX,
        TRUST_MAX, USED_MAX, UsedKey, WAYS,
    },
    reason::{COUNTERS_MAX, Reporting},
    seen::{self, FramesSeen},
    spa::layout::{
        AnswerWords, FWKNOP_KEYS_MAX, FwknopKey, GATES, Gate, KEYS_MAX, LAST_MAX, MAY_MAX,
        SEEN_MAX, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey, SpaScratch, SpaTag,
    },
    time::Moment,
};

const GROWING: usize = BPF_F_NO_PREALLOC as usize;

/// The features that the configuration uses. The word is fixed when the program is loaded, so that the verifier
/// removes the code of the others.
#[unsafe(no_mangle)]
static FEATURES: Global<u32> = Global::new(0);

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
static PORTS: Array<PortRule, { PORT_RULES as usize }> = Array::new();
/// User space sets the capacity to what the configuration needs.
#[btf_map]
static NODES: Array<Node, { NODES_MAX as usize }> = Array::new();
/// User space sets the capacity to what the configuration needs.
#[btf_map]
static EDGES: HashMap<EdgeKey, u32, { NODES_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static DOORS: Array<DoorEntry, { DOOR_ENTRIES_MAX as usize }> = Array::new();
/// Keys are numbers of doors.
#[btf_map]
static OTP: HashMap<u32, OtpEntry, { DOORS_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static TARGETS: HashMap<Address, u32, { TARGETS_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static TRUST: LpmTrie<Address, u32, { TRUST_MAX as usize }> = LpmTrie::new();
/// The prefixes that the configuration blocks.
#[btf_map]
static BLOCK: LpmTrie<Address, u32, { BLOCK_MAX as usize }> = LpmTrie::new();
/// The prefixes that commands have blocked.
#[btf_map]
static BLOCKED: LpmTrie<Address, Blocked, { BLOCKED_MAX as usize }> = LpmTrie::new();
#[btf_map]
static FROM: LpmTrie<FromKey, u32, { FROM_MAX as usize }> = LpmTrie::new();
#[btf_map]
static PRESENCE: Array<u64, { PRESENCE_SLOTS as usize }> = Array::new();
#[btf_map]
static FIRST_KNOCKS: Array<[u64; WAYS], { BUCKETS as usize }> = Array::new();
#[btf_map]
static CLAIMS: Array<u64, { CLAIM_SLOTS as usize }> = Array::new();
#[btf_map]
static PROGRESS: LruHashMap<ProgressKey, u64, { PROGRESS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static ALLOW: HashMap<GrantKey, u64, { ALLOW_MAX as usize }> = HashMap::new();
#[btf_map]
static FLOWS: LruHashMap<FlowKey, u64, { FLOWS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static LOCKOUTS: Array<[u64; WAYS], { LOCKOUTS_MAX as usize }> = Array::new();
/// Keys are slots of interfaces.
#[btf_map]
static FRAMES_SEEN: Array<FramesSeen, { seen::SLOTS as usize }> = Array::new();
#[btf_map]
static USED: HashMap<UsedKey, u64, { USED_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTERS_MAX as usize }> = PerCpuArray::new();
/// Event limits: for drops, for knocks.
#[btf_map]
static EVENT_LIMITS: Array<u64, 2> = Array::new();
#[btf_map]
static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();
/// The time at the last timer tick on this CPU, and that tick.
#[btf_map]
static CLOCK: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();
/// Memory for the computation of HMACs.
#[btf_map]
static SCRATCH: PerCpuArray<HmacScratch, 1> = PerCpuArray::new();

/// Realtime minus time since boot, in nanoseconds; user space writes it each second.
#[btf_map]
static WALL_CLOCK: Array<u64, 1> = Array::new();
#[btf_map]
static SPA_GATES: Array<Gate, { GATES as usize }> = Array::new();
#[btf_map]
static SPA_KEYS: HashMap<SpaKeyName, SpaKey, { KEYS_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static SPA_MAY: HashMap<SpaMayKey, SpaMay, { MAY_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static SPA_LAST: HashMap<SpaKeyId, u64, { LAST_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static SPA_SEEN: HashMap<SpaTag, u64, { SEEN_MAX as usize }, GROWING> = HashMap::new();
#[btf_map]
static FWKNOP_KEYS: Array<FwknopKey, { FWKNOP_KEYS_MAX as usize }> = Array::new();
/// The other address of the current SPA packet.
#[btf_map]
static SPA_OTHER: PerCpuArray<Address, 1> = PerCpuArray::new();
/// Memory for the judgement of a packet of single packet authorization.
#[btf_map]
static SPA_SCRATCH: PerCpuArray<SpaScratch, 1> = PerCpuArray::new();
/// Memory for the judgement of a packet of fwknop.
#[btf_map]
static FWKNOP_SCRATCH: PerCpuArray<fwknop::FwknopScratch, 1> = PerCpuArray::new();

/// The answer to the current packet, as words; 0 is none.
#[btf_map]
static ANSWER: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// A word in a map.
#[derive(Clone, Copy)]
pub(crate) struct Slot(NonNull<u64>);

impl Slot {
    #[inline(always)]
    fn new(pointer: *mut u64) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }
}

impl Word for Slot {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the pointer is an aligned map value, which lives while the program runs.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as for `load`; other CPUs see the old word or the new one.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;
        // SAFETY: as for `load`; BPF_CMPXCHG needs Linux 5.12 (5ffa25502b5a).
        let (_, replaced) = unsafe { atomic_cxchg::<u64, SEQ, SEQ>(self.0.as_ptr(), old, new) };
        replaced
    }
}

macro_rules! table {
    ($map:ident, $table:ident, $key:ty) => {
        struct $table;

        impl Table<$key> for $table {
            type Word = Slot;

            #[inline(always)]
            fn find(&self, key: &$key) -> Option<Slot> {
                $map.get_ptr_mut(key).and_then(Slot::new)
            }

            #[inline(always)]
            fn insert(&self, key: &$key, value: u64) -> bool {
                $map.insert(key, &value, u64::from(BPF_NOEXIST)).is_ok()
            }
        }
    };
}

table!(PROGRESS, Progress, ProgressKey);
table!(ALLOW, Allow, GrantKey);
table!(FLOWS, Flows, FlowKey);
table!(USED, Used, UsedKey);
table!(SPA_LAST, SpaLast, SpaKeyId);
table!(SPA_SEEN, SpaSeen, SpaTag);

/// A bucket of cells.
struct Cells(NonNull<[u64; WAYS]>);

impl Bucket for Cells {
    type Word = Slot;

    #[inline(always)]
    fn cell(&self, way: usize) -> Option<Slot> {
        Slot::new(self.0.as_ptr().cast::<u64>().wrapping_add(way & (WAYS - 1)))
    }
}

/// Returns this CPU's memory for the judgement of a SPA packet.
#[inline(always)]
fn spa_scratch() -> Option<&'static mut SpaScratch> {
    let scratch = SPA_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a CPU judges one packet at a time, and only `Env::with_spa_scratch` fetches the memory.
    unsafe { scratch.as_mut() }
}

/// Returns this CPU's memory for the judgement of a packet of fwknop.
#[inline(always)]
fn fwknop_scratch() -> Option<&'static mut fwknop::FwknopScratch> {
    let scratch = FWKNOP_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: as in `spa_scratch`.
    unsafe { scratch.as_mut() }
}

/// Returns the words of the answer to the current SPA packet.
#[inline(always)]
pub(crate) fn spa_answer() -> Option<&'static AnswerWords> {
    SPA_SCRATCH.get(0).map(|scratch| &scratch.answer)
}

/// Returns this CPU's memory for the computation of HMACs.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut HmacScratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a CPU judges one packet at a time, and only `subprograms::source_knocks` uses it.
    unsafe { scratch.as_mut() }
}

/// Increments the counter with the number of a reason or stat.
#[inline(always)]
pub(crate) fn count(number: u32) {
    if let Some(word) = COUNTERS.get_ptr_mut(number).and_then(Slot::new) {
        word.store(word.load().wrapping_add(1));
    }
}

/// Records that a frame of an interface got here, and returns whether commands have blocked sources. All CPUs share the
/// word; mostly it is written already.
#[inline(always)]
fn note(interface: u32) -> bool {
    let word = FRAMES_SEEN.get_ptr_mut(seen::slot(interface));
    let Some(word) = word.and_then(|seen| Slot::new(seen.cast())) else {
        return false;
    };
    let held = word.load();
    if held == FramesSeen::ARRIVED {
        return false;
    }
    if held & FramesSeen::ARRIVED == 0 {
        // Not a store: user space may write the other bit meanwhile.
        word.replace(held, held | FramesSeen::ARRIVED);
    }
    held & FramesSeen::BLOCKS != 0
}

/// Records the type of an interface's frame that is neither IPv4 nor IPv6.
#[inline(always)]
pub(crate) fn note_foreign(interface: u32, ethertype: u16) {
    let seen = FRAMES_SEEN.get_ptr_mut(seen::slot(interface));
    let word = seen.and_then(|seen| Slot::new(seen.cast::<u64>().wrapping_add(1)));
    if let Some(word) = word {
        word.store(FramesSeen::and_foreign(word.load(), ethertype));
    }
}

#[inline(always)]
fn answer_words() -> Option<[Slot; 2]> {
    let first = ANSWER.get_ptr_mut(0)?.cast::<u64>();
    Some([Slot::new(first)?, Slot::new(first.wrapping_add(1))?])
}

/// Takes the answer that was left for this packet.
#[inline(always)]
pub(crate) fn take_answer() -> Option<Answer> {
    let [first, second] = answer_words()?;
    let kind = first.load();
    first.store(0);
    (kind != 0).then(|| Answer::from_words([kind, second.load()]))
}

/// The environment made of the maps above.
pub(crate) struct Maps {
    /// Read once, since each use would be a load.
    features: Features,
    has_blocks: bool,
}

impl Maps {
    /// Returns the maps.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            features: Features(FEATURES.load()),
            has_blocks: false,
        }
    }

    /// Returns the maps for the judgement of a frame of an interface, which is recorded as arrived.
    #[inline(always)]
    pub(crate) fn for_frame(interface: u32) -> Self {
        Self {
            has_blocks: note(interface),
            ..Self::new()
        }
    }
}

impl Env for Maps {
    type Word = Slot;

    /// Returns `CLOCK_BOOTTIME` as of the timer tick: reading it costs 37 ns, reading the tick count one.
    #[inline(always)]
    fn now(&self) -> Moment {
        let Some(clock) = CLOCK.get_ptr_mut(0) else {
            return Moment::default();
        };
        let tick = Slot::new(clock.cast());
        let nanos = Slot::new(clock.cast::<u64>().wrapping_add(1));
        let (Some(tick), Some(nanos)) = (tick, nanos) else {
            return Moment::default();
        };
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_jiffies64() };
        if tick.load() != now {
            tick.store(now);
            // SAFETY: the helper has no preconditions.
            nanos.store(unsafe { bpf_ktime_get_boot_ns() });
        }
        Moment::from_nanos(nanos.load())
    }

    #[inline(always)]
    fn features(&self) -> Features {
        self.features
    }

    #[inline(always)]
    fn port(&self, index: u32) -> PortRule {
        PORTS.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        // SAFETY: the value is copied out at once, and the map is written only before the program
        // is attached.
        unsafe { EDGES.get(key) }.copied()
    }

    #[inline(always)]
    fn door(&self, index: u32) -> Option<&DoorEntry> {
        DOORS.get(index)
    }

    #[inline(always)]
    fn otp(&self, door: u16) -> Option<&OtpEntry> {
        // SAFETY: the map is written only before the program is attached.
        unsafe { OTP.get(u32::from(door)) }
    }

    #[inline(always)]
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "without the borrow the key may be copied to the 512-byte stack (aya #1626)"
    )]
    fn target(&self, address: Address) -> u16 {
        // SAFETY: the value is copied out at once, and the map is written only before the program
        // is attached.
        unsafe { TARGETS.get(&address) }.map_or(0, |&target_id| target_id as u16)
    }

    #[inline(always)]
    fn is_trusted(&self, source: Address) -> bool {
        TRUST.get(&Key::new(128, source)).is_some()
    }

    #[inline(always)]
    fn has_blocks(&self) -> bool {
        self.has_blocks
    }

    #[inline(always)]
    fn blocked(&self, source: Address) -> Option<Blocked> {
        BLOCKED.get(&Key::new(128, source)).copied()
    }

    #[inline(always)]
    fn is_in_block_list(&self, source: Address) -> bool {
        BLOCK.get(&Key::new(128, source)).is_some()
    }

    #[inline(always)]
    fn is_from(&self, key: &FromKey) -> bool {
        FROM.get(&Key::new(FromKey::DOOR_BITS + 128, *key))
            .is_some()
    }

    #[inline(always)]
    fn presence(&self, slot: u32) -> Option<Slot> {
        PRESENCE.get_ptr_mut(slot).and_then(Slot::new)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<impl Bucket<Word = Slot>> {
        FIRST_KNOCKS
            .get_ptr_mut(index)
            .and_then(NonNull::new)
            .map(Cells)
    }

    #[inline(always)]
    fn claim_word(&self, slot: u32) -> Option<Slot> {
        CLAIMS.get_ptr_mut(slot).and_then(Slot::new)
    }

    #[inline(always)]
    fn progress(&self) -> &impl Table<ProgressKey, Word = Slot> {
        &Progress
    }

    #[inline(always)]
    fn allow(&self) -> &impl Table<GrantKey, Word = Slot> {
        &Allow
    }

    #[inline(always)]
    fn flows(&self) -> &impl Table<FlowKey, Word = Slot> {
        &Flows
    }

    #[inline(always)]
    fn lockouts(&self, bucket: u32) -> Option<impl Bucket<Word = Slot>> {
        LOCKOUTS
            .get_ptr_mut(bucket)
            .and_then(NonNull::new)
            .map(Cells)
    }

    #[inline(always)]
    fn lockout_key(&self) -> Option<&[u64; WAYS]> {
        let shift = self.config()?.lockouts_shift & 31;
        LOCKOUTS.get(LOCKOUT_BUCKETS >> shift)
    }

    #[inline(always)]
    fn used(&self) -> &impl Table<UsedKey, Word = Slot> {
        &Used
    }

    #[inline(always)]
    fn wall_clock(&self) -> u64 {
        let word = WALL_CLOCK.get_ptr_mut(0).and_then(Slot::new);
        word.map_or(0, |word| word.load())
    }

    #[inline(always)]
    fn spa_gate(&self, index: u32) -> Option<&Gate> {
        SPA_GATES.get(index)
    }

    #[inline(always)]
    fn spa_key(&self, name: &SpaKeyName) -> Option<&SpaKey> {
        // SAFETY: the map is written only before the program is attached.
        unsafe { SPA_KEYS.get(name) }
    }

    #[inline(always)]
    fn spa_may(&self, key: &SpaMayKey) -> Option<&SpaMay> {
        // SAFETY: the map is written only before the program is attached.
        unsafe { SPA_MAY.get(key) }
    }

    #[inline(always)]
    fn spa_last(&self) -> &impl Table<SpaKeyId, Word = Slot> {
        &SpaLast
    }

    #[inline(always)]
    fn spa_seen(&self) -> &impl Table<SpaTag, Word = Slot> {
        &SpaSeen
    }

    #[inline(always)]
    fn spa_other(&self) -> Address {
        let other = SPA_OTHER.get(0);
        other.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_spa_other(&self, other: Address) {
        if let Some(place) = SPA_OTHER.get_ptr_mut(0) {
            // SAFETY: the pointer is an aligned map value of this CPU.
            unsafe { place.write(other) };
        }
    }

    #[inline(always)]
    fn with_spa_scratch<T>(&self, judge: impl FnOnce(&mut SpaScratch) -> T) -> Option<T> {
        spa_scratch().map(judge)
    }

    #[inline(always)]
    fn with_fwknop_scratch<T>(
        &self,
        judge: impl FnOnce(&mut fwknop::FwknopScratch) -> T,
    ) -> Option<T> {
        fwknop_scratch().map(judge)
    }

    #[inline(always)]
    fn fwknop_key(&self, index: u32) -> Option<&FwknopKey> {
        FWKNOP_KEYS.get(index)
    }

    #[inline(always)]
    fn event_limit(&self, reporting: Reporting) -> Option<Slot> {
        let index = match reporting {
            Reporting::Drops => 0,
            Reporting::Knocks => 1,
            Reporting::Never | Reporting::Always => return None,
        };
        EVENT_LIMITS.get_ptr_mut(index).and_then(Slot::new)
    }

    #[inline(always)]
    fn emit(&self, event: impl FnOnce() -> Event) -> bool {
        let Some(mut entry) = EVENTS.reserve(0) else {
            return false;
        };
        entry.write(event());
        entry.submit(0);
        true
    }

    #[inline(always)]
    fn count(&self, stat: Stat) {
        count(stat as u32);
    }

    #[inline(always)]
    fn answer(&self, answer: Answer) {
        if let Some(words) = answer_words() {
            for (word, value) in words.into_iter().zip(answer.to_words()) {
                word.store(value);
            }
        }
    }
}
