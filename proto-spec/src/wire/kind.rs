//! What kind a message is: its name in logs and traces, and who may send it.

use super::message::Message;

impl Message {
    /// Whether somebody who is not a member may send or receive it.
    pub fn is_enrolment(&self) -> bool {
        matches!(
            self,
            Self::EnrolHello(_)
                | Self::EnrolCommittee { .. }
                | Self::EnrolChallenge { .. }
                | Self::EnrolAnswer(_)
                | Self::EnrolPart { .. }
                | Self::EnrolAdmit { .. }
                | Self::EnrolAdmitted
                | Self::EnrolRefused { .. }
                | Self::EnrolForming { .. }
                | Self::FoundingCall { .. }
                | Self::FoundingChallenge { .. }
                | Self::FoundingAnswer { .. }
                | Self::FoundingDeal { .. }
                | Self::FoundingVote { .. }
                | Self::FoundingDone(_)
        )
    }

    /// Its name, for logs and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EnrolHello(_) => "enrol-hello",
            Self::EnrolCommittee { .. } => "enrol-committee",
            Self::EnrolChallenge { .. } => "enrol-challenge",
            Self::EnrolAnswer(_) => "enrol-answer",
            Self::EnrolPart { .. } => "enrol-part",
            Self::EnrolAdmit { .. } => "enrol-admit",
            Self::EnrolAdmitted => "enrol-admitted",
            Self::EnrolRefused { .. } => "enrol-refused",
            Self::EnrolForming { .. } => "enrol-forming",
            Self::FoundingCall { .. } => "founding-call",
            Self::FoundingChallenge { .. } => "founding-challenge",
            Self::FoundingAnswer { .. } => "founding-answer",
            Self::FoundingDeal { .. } => "founding-deal",
            Self::FoundingVote { .. } => "founding-vote",
            Self::FoundingDone(_) => "founding-done",
            Self::Announce { .. } => "announce",
            Self::Ballot(_) => "ballot",
            Self::Part { .. } => "part",
            Self::KeyDealt { .. } => "key-dealt",
            Self::KeyHeld { .. } => "key-held",
            Self::UnlockRequest { .. } => "unlock-request",
            Self::UnlockPart { .. } => "unlock-part",
            Self::EvidenceAnnounce { .. } => "evidence-announce",
            Self::RecordsPull { .. } => "records-pull",
            Self::RecordsPage { .. } => "records-page",
            Self::PutBegin(_) => "put-begin",
            Self::PutBundle { .. } => "put-bundle",
            Self::Entrust(_) => "entrust",
            Self::Entrusted { .. } => "entrusted",
            Self::ShareStore { .. } => "share-store",
            Self::ShareStored { .. } => "share-stored",
            Self::PutRecord { .. } => "put-record",
            Self::Recorded { .. } => "recorded",
            Self::RecordedAsk { .. } => "recorded-ask",
            Self::MapRequest { .. } => "map-request",
            Self::MapReply { .. } => "map-reply",
            Self::OwnerMapRequest { .. } => "owner-map-request",
            Self::ShareRequest { .. } => "share-request",
            Self::ShareReply { .. } => "share-reply",
            Self::PayloadRequest { .. } => "payload-request",
            Self::PayloadReply { .. } => "payload-reply",
            Self::ChangeRecord { .. } => "change-record",
            Self::BoundAsk { .. } => "bound-ask",
            Self::Bound { .. } => "bound",
            Self::HeadRequest { .. } => "head-request",
            Self::HeadReply { .. } => "head-reply",
            Self::LeaveRequest { .. } => "leave-request",
            Self::Unseated(_) => "unseated",
            Self::News(_) => "news",
            Self::EpochPull => "epoch-pull",
            Self::Rewrapped { .. } => "rewrapped",
            Self::StateOffer(_) => "state-offer",
            Self::StatePull { .. } => "state-pull",
            Self::StatePage { .. } => "state-page",
            Self::SeatPull => "seat-pull",
            Self::SeatProof(_) => "seat-proof",
            Self::Refusal { .. } => "refusal",
        }
    }
}
