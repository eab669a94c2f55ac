//! Sessions of the chip: they encrypt their parameters, those that carry secrets are salted by a key of the chip, so
//! that nobody between the daemon and the chip reads one; every one is flushed, whatever happens in between.

use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList, SymmetricDefinition};

use super::{EkKind, TpmError};

/// PolicySecret(endorsement) under SHA-384: TCG EK Credential Profile 2.5, B.6.3.
const POLICY_A_SHA384: [u8; 48] = [
    0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6, 0x4f, 0x43, 0x26,
    0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e, 0x14, 0x3e, 0x8b, 0xb1, 0x13, 0x38,
    0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
];
/// The other branch of the high-range templates' policy: the same profile.
const POLICY_C_SHA384: [u8; 48] = [
    0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b, 0x6a, 0x16,
    0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, 0xb4, 0x94, 0x7c, 0x2d, 0x73, 0xe6,
    0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
];

/// Names a refused command.
pub(super) fn refused<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> TpmError {
    move |error| TpmError::Command(what, error.to_string())
}

/// Runs a command in an HMAC session salted by this key and with encrypted parameters.
pub(super) fn with_session<T>(
    context: &mut Context,
    salt: KeyHandle,
    command: impl FnOnce(&mut Context) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let cipher = SymmetricDefinition::AES_128_CFB;
    let session = start(context, Some(salt), SessionType::Hmac, cipher, HashingAlgorithm::Sha256)?;
    context.set_sessions((Some(session), None, None));
    let result = command(context);
    context.clear_sessions();
    flush(context, SessionHandle::from(session).into());
    result
}

/// Runs a command that an authorisation value allows, in an HMAC session: the value itself never travels.
pub(super) fn with_authorisation<T>(
    context: &mut Context,
    command: impl FnOnce(&mut Context, AuthSession) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let cipher = SymmetricDefinition::AES_128_CFB;
    let session = begin(context, None, SessionType::Hmac, cipher, HashingAlgorithm::Sha256)?;
    let result = command(context, session);
    context.clear_sessions();
    flush(context, SessionHandle::from(session).into());
    result
}

/// Runs a command under the policy of an endorsement key: whoever has the endorsement hierarchy's authorisation. That
/// key salts the session, so that what the chip gives back is read by nobody in between.
pub(super) fn with_ek_policy<T>(
    context: &mut Context,
    kind: EkKind,
    salt: KeyHandle,
    command: impl FnOnce(&mut Context, AuthSession) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let (hash, cipher) = match kind {
        EkKind::EccP384 => (HashingAlgorithm::Sha384, SymmetricDefinition::AES_256_CFB),
        EkKind::Rsa2048 => (HashingAlgorithm::Sha256, SymmetricDefinition::AES_128_CFB),
    };
    let session = start(context, Some(salt), SessionType::Policy, cipher, hash)?;
    let result = satisfy(context, kind, session).and_then(|()| command(context, session));
    context.clear_sessions();
    flush(context, SessionHandle::from(session).into());
    result
}

fn satisfy(context: &mut Context, kind: EkKind, session: AuthSession) -> Result<(), TpmError> {
    let policy = PolicySession::try_from(session).map_err(refused("a policy session"))?;
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Default::default(),
                Default::default(),
                Default::default(),
                None,
            )
        })
        .map_err(refused("PolicySecret(endorsement)"))?;
    if kind == EkKind::EccP384 {
        let mut branches = DigestList::new();
        for branch in [POLICY_A_SHA384, POLICY_C_SHA384] {
            let digest = Digest::try_from(branch.as_slice()).map_err(refused("a policy digest"))?;
            branches.add(digest).map_err(refused("a policy digest"))?;
        }
        context.policy_or(policy, branches).map_err(refused("PolicyOR"))?;
    }
    Ok(())
}

/// A session that encrypts its parameters: of the sessions of one command, only one may.
fn start(
    context: &mut Context,
    salt: Option<KeyHandle>,
    kind: SessionType,
    cipher: SymmetricDefinition,
    hash: HashingAlgorithm,
) -> Result<AuthSession, TpmError> {
    let session = begin(context, salt, kind, cipher, hash)?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).map_err(refused("session attributes"))?;
    Ok(session)
}

fn begin(
    context: &mut Context,
    salt: Option<KeyHandle>,
    kind: SessionType,
    cipher: SymmetricDefinition,
    hash: HashingAlgorithm,
) -> Result<AuthSession, TpmError> {
    context
        .start_auth_session(salt, None, None, kind, cipher, hash)
        .map_err(refused("a session"))?
        .ok_or_else(|| TpmError::Command("a session", "no handle".to_owned()))
}

/// Flushes a handle. A chip that refuses this has lost it already.
pub(super) fn flush(context: &mut Context, handle: ObjectHandle) {
    if let Err(error) = context.flush_context(handle) {
        tracing::debug!(%error, "the TPM did not flush a handle");
    }
}
