//! Gossipsub, set by hand: the library's defaults forgive a peer with a good history many lies. Nothing is passed on
//! before the rules have judged it, and nobody outside the circle is heard.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, IdentityTransform, Message, MessageAcceptance, MessageAuthenticity,
    MessageId, PeerScoreParams, PeerScoreThresholds, PublishError, TopicScoreParams, ValidationMode,
    WhitelistSubscriptionFilter,
};
use spec::gossip::Verdict;
use spec::limits::{
    GOSSIP_BACKOFF_S, GOSSIP_BREACH_WEIGHT, GOSSIP_BREACHES_FREE, GOSSIP_HEARTBEAT_MS, GOSSIP_LIES, GOSSIP_MEMORY_S,
    GOSSIP_MESH, GOSSIP_MESSAGE_MAX, GOSSIP_PER_PEER_MAX, GOSSIP_REJECTED_DECAY, GOSSIP_REJECTED_WEIGHT,
    GOSSIP_STRANGER, GOSSIP_THRESHOLDS, GOSSIP_UNJUDGED_MAX, GOSSIP_WINDOW_S,
};
use spec::types::sha256;

/// Everybody says one thing: beacons and headers.
const TOPIC: &str = "/vouchsafe/1/epochs";
/// Counts fade once in this time.
const DECAY: Duration = Duration::from_secs(1);
/// The library forgets a peer that went after this time.
const FORGET: Duration = Duration::from_secs(10);
/// A frame carries a few messages, or the names of some that were heard.
const FRAME_MAX: usize = 8 * GOSSIP_MESSAGE_MAX;

/// The library's part.
pub(super) type Gossipsub = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// News that waits for its verdict, and who is heard.
#[derive(Default)]
pub(super) struct Gossip {
    circle: BTreeSet<PeerId>,
    /// Members whose messages were rejected: how many, and when the last one was.
    liars: BTreeMap<PeerId, (u32, Instant)>,
    /// Messages that each peer passed on since the window began.
    heard: BTreeMap<PeerId, u32>,
    window: Option<Instant>,
    unjudged: BTreeMap<u64, (MessageId, PeerId)>,
    next: u64,
}

/// Gossipsub with every parameter set.
pub(super) fn behaviour() -> Option<Gossipsub> {
    let [low, mesh, high] = GOSSIP_MESH;
    let config = ConfigBuilder::default()
        .heartbeat_interval(Duration::from_millis(GOSSIP_HEARTBEAT_MS))
        .mesh_n_low(low)
        .mesh_n(mesh)
        .mesh_n_high(high)
        .mesh_outbound_min(low / 2)
        .prune_backoff(Duration::from_secs(GOSSIP_BACKOFF_S))
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        // The same beacon, combined by two hosts, is one message.
        .message_id_fn(|message: &Message| MessageId::from(sha256(&message.data).0.to_vec()))
        .max_transmit_size(FRAME_MAX)
        // Several members publish the same: their meshes are enough.
        .flood_publish(false)
        .build()
        .ok()?;
    let topic = IdentTopic::new(TOPIC);
    // Of other topics nobody may speak: names of topics are kept as long as a connection lasts.
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut behaviour = Gossipsub::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter).ok()?;
    behaviour.with_peer_score(scores(&topic), thresholds()).ok()?;
    behaviour.subscribe(&topic).ok()?;
    Some(behaviour)
}

/// A peer can lose, and never earn: with a good history it could afford to lie.
fn scores(topic: &IdentTopic) -> PeerScoreParams {
    let of_topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        time_in_mesh_quantum: DECAY,
        time_in_mesh_cap: 1.0,
        first_message_deliveries_weight: 0.0,
        first_message_deliveries_decay: 0.5,
        first_message_deliveries_cap: 1.0,
        // Whoever has nothing new to say is not at fault: another was quicker.
        mesh_message_deliveries_weight: 0.0,
        mesh_message_deliveries_decay: 0.5,
        mesh_message_deliveries_cap: 1.0,
        mesh_message_deliveries_threshold: 1.0,
        mesh_message_deliveries_window: Duration::from_millis(10),
        mesh_message_deliveries_activation: DECAY,
        mesh_failure_penalty_weight: 0.0,
        mesh_failure_penalty_decay: 0.5,
        invalid_message_deliveries_weight: GOSSIP_REJECTED_WEIGHT,
        invalid_message_deliveries_decay: GOSSIP_REJECTED_DECAY,
    };
    PeerScoreParams {
        topics: HashMap::from([(topic.hash(), of_topic)]),
        topic_score_cap: 0.0,
        app_specific_weight: 1.0,
        // Many hosts may stand behind one address; members are known by their keys.
        ip_colocation_factor_weight: 0.0,
        ip_colocation_factor_threshold: 1.0,
        ip_colocation_factor_whitelist: HashSet::new(),
        behaviour_penalty_weight: GOSSIP_BREACH_WEIGHT,
        behaviour_penalty_threshold: GOSSIP_BREACHES_FREE,
        behaviour_penalty_decay: GOSSIP_REJECTED_DECAY,
        decay_interval: DECAY,
        decay_to_zero: 0.1,
        // Of strangers nothing is kept: anybody can have many keys. Members that lied are remembered here, by name.
        retain_score: FORGET,
        // A slow peer is no liar.
        slow_peer_weight: 0.0,
        slow_peer_threshold: 1.0,
        slow_peer_decay: 0.5,
    }
}

fn thresholds() -> PeerScoreThresholds {
    let [gossip_threshold, publish_threshold, graylist_threshold] = GOSSIP_THRESHOLDS;
    PeerScoreThresholds {
        gossip_threshold,
        publish_threshold,
        graylist_threshold,
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.0,
    }
}

impl Gossip {
    /// From now on these are heard, and nobody else.
    pub(super) fn set_circle<'a>(
        &mut self,
        gossipsub: &mut Gossipsub,
        circle: BTreeSet<PeerId>,
        connected: impl Iterator<Item = &'a PeerId>,
    ) {
        self.circle = circle;
        self.liars.retain(|peer, _| self.circle.contains(peer));
        connected.for_each(|peer| self.met(gossipsub, peer));
    }

    /// A peer is connected. What a stranger passes on is dropped before anything is made of it: were it taken note of, true
    /// news that a stranger was the first to bring would be rejected, and every member blamed that brings it next.
    pub(super) fn met(&self, gossipsub: &mut Gossipsub, peer: &PeerId) {
        if self.circle.contains(peer) {
            gossipsub.remove_blacklisted_peer(peer);
        } else {
            gossipsub.blacklist_peer(peer);
        }
        let memory = Duration::from_secs(GOSSIP_MEMORY_S);
        let lied = self.liars.get(peer).is_some_and(|(lies, last)| *lies >= GOSSIP_LIES && last.elapsed() < memory);
        let score = match self.circle.contains(peer) {
            true if lied => 2.0 * GOSSIP_THRESHOLDS[2],
            true => 0.0,
            false => GOSSIP_STRANGER,
        };
        gossipsub.set_application_score(peer, score);
    }

    /// A peer has no connection any more: nothing is remembered of a stranger.
    pub(super) fn parted(gossipsub: &mut Gossipsub, peer: &PeerId) {
        gossipsub.remove_blacklisted_peer(peer);
    }

    /// Publishes a message.
    pub(super) fn publish(gossipsub: &mut Gossipsub, bytes: Vec<u8>) {
        match gossipsub.publish(IdentTopic::new(TOPIC), bytes) {
            // Somebody else was quicker; or nobody is there, and whoever comes pulls.
            Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => tracing::debug!(%error, "news was not published"),
        }
    }

    /// A message came: its name and bytes, for the rules to judge; who passed it on.
    pub(super) fn arrived(&mut self, gossipsub: &mut Gossipsub, event: Event) -> Option<(PeerId, u64, Vec<u8>)> {
        let Event::Message { propagation_source, message_id, message } = event else { return None };
        if message.data.len() > GOSSIP_MESSAGE_MAX {
            gossipsub.report_message_validation_result(&message_id, &propagation_source, MessageAcceptance::Reject);
            return None;
        }
        let is_member = self.circle.contains(&propagation_source);
        if !is_member || self.is_too_much(&propagation_source) {
            // Nobody has looked whether it holds: whoever else brings it is not to blame.
            gossipsub.report_message_validation_result(&message_id, &propagation_source, MessageAcceptance::Ignore);
            if is_member {
                self.lied(gossipsub, propagation_source);
            }
            return None;
        }
        // A verdict may get lost in a full queue: the oldest makes room.
        if self.unjudged.len() >= GOSSIP_UNJUDGED_MAX
            && let Some(oldest) = self.unjudged.keys().next().copied()
        {
            self.judge(gossipsub, oldest, Verdict::Ignore);
        }
        self.next += 1;
        self.unjudged.insert(self.next, (message_id, propagation_source));
        Some((propagation_source, self.next, message.data))
    }

    /// Counts a message; whether its peer has passed on more than anybody honest would.
    fn is_too_much(&mut self, peer: &PeerId) -> bool {
        if self.window.is_none_or(|since| since.elapsed() > Duration::from_secs(GOSSIP_WINDOW_S)) {
            self.window = Some(Instant::now());
            self.heard.clear();
        }
        let heard = self.heard.entry(*peer).or_default();
        *heard = heard.saturating_add(1);
        *heard > GOSSIP_PER_PEER_MAX
    }

    /// The rules have judged.
    pub(super) fn judge(&mut self, gossipsub: &mut Gossipsub, name: u64, verdict: Verdict) {
        let Some((id, from)) = self.unjudged.remove(&name) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        gossipsub.report_message_validation_result(&id, &from, acceptance);
        if verdict == Verdict::Reject && self.circle.contains(&from) {
            self.lied(gossipsub, from);
        }
    }

    fn lied(&mut self, gossipsub: &mut Gossipsub, member: PeerId) {
        let (lies, last) = self.liars.entry(member).or_insert((0, Instant::now()));
        let forgotten = last.elapsed() > Duration::from_secs(GOSSIP_MEMORY_S);
        (*lies, *last) = (if forgotten { 1 } else { lies.saturating_add(1) }, Instant::now());
        self.met(gossipsub, &member);
    }
}
