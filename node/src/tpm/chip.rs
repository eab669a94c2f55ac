//! What is done in the chip. Three object slots are all that a chip promises, so every key is loaded for one command
//! and flushed after it.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use spec::attest::enroll::EkOffer;
use spec::attest::quote::{Quote, digest_of_pcrs};
use spec::attest::tpm::{CredentialBlob, QuoteContent};
use spec::host::{TpmReply, TpmRequest};
use spec::types::{Digest as SpecDigest, SecretBytes};
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, KeyCustomization, ak, ek};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::CapabilityType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm, SignatureSchemeAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, CapabilityData, EccPoint, EccScheme, EncryptedSecret, IdObject, KeyDerivationFunctionScheme, KeyedHashScheme,
    PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Private, Public, PublicBuilder, PublicEccParametersBuilder,
    PublicKeyedHashParameters, SensitiveData, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};
use tss_esapi::{Context, TctiNameConf};

use super::sessions::{flush, refused, with_authorisation, with_ek_policy, with_session};
use super::{ChipKeys, EkKind, Opened, Sealed, StoredEk, TpmError};

/// A quote is tried again where a PCR moved between reading and quoting: common in the first minute of a boot.
const QUOTE_TRIES: u32 = 4;
/// PCRs that one PCR_Read gives at most.
const PCRS_AT_ONCE: usize = 8;
/// Where the handles of transient objects begin (TPM 2.0 Part 2, 7.2).
const FIRST_TRANSIENT: u32 = 0x8000_0000;
/// Where the handles of loaded sessions begin.
const FIRST_LOADED_SESSION: u32 = 0x0200_0000;
/// More than any chip has slots for.
const HANDLES_ASKED: u32 = 64;
/// Bytes of each sealed secret.
const SECRET_BYTES: usize = 32;

/// The chip, and what was made in it for this host.
pub(super) struct Chip {
    name: String,
    /// None after a failure, until it opens again.
    context: Option<Context>,
    keys: Option<ChipKeys>,
    ak_auth: SecretBytes,
}

fn algorithm(kind: EkKind) -> AsymmetricAlgorithmSelection {
    match kind {
        EkKind::EccP384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
        EkKind::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
    }
}

impl Chip {
    pub(super) fn open(name: &str) -> Result<Self, TpmError> {
        let context = Some(open_context(name)?);
        Ok(Self { name: name.to_owned(), context, keys: None, ak_auth: SecretBytes::default() })
    }

    /// A new context in place of one that failed.
    pub(super) fn reopen(&mut self) {
        // The old one first: a chip without a resource manager has room for one client.
        self.context = None;
        match open_context(&self.name) {
            Ok(context) => self.context = Some(context),
            Err(error) => tracing::warn!(%error, "the TPM does not open; the next question tries again"),
        }
    }

    fn context(&mut self) -> Result<&mut Context, TpmError> {
        if self.context.is_none() {
            self.context = Some(open_context(&self.name)?);
        }
        self.context.as_mut().ok_or(TpmError::Wedged)
    }

    /// The endorsement keys that this chip has: those with a certificate, or else the one that every chip has.
    fn endorsement_keys(&mut self) -> Result<Vec<StoredEk>, TpmError> {
        let mut found = Vec::new();
        for kind in [EkKind::EccP384, EkKind::Rsa2048] {
            match ek::retrieve_ek_pubcert(self.context()?, algorithm(kind)) {
                Ok(certificate) => found.push(StoredEk { kind, public: self.ek_public(kind)?, certificate }),
                Err(error) if is_no_such_handle(&error) => {}
                Err(error) => return Err(refused("reading an endorsement certificate")(error)),
            }
        }
        if found.is_empty() {
            let public = self.ek_public(EkKind::Rsa2048).map_err(|_| TpmError::NoEndorsementKey)?;
            found.push(StoredEk { kind: EkKind::Rsa2048, public, certificate: Vec::new() });
        }
        Ok(found)
    }

    fn ek_public(&mut self, kind: EkKind) -> Result<Vec<u8>, TpmError> {
        self.with_ek(kind, |context, ek| {
            let (public, _, _) = context.read_public(ek).map_err(refused("ReadPublic"))?;
            public.marshall().map_err(refused("a public area"))
        })
    }

    fn with_ek<T>(
        &mut self,
        kind: EkKind,
        command: impl FnOnce(&mut Context, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let context = self.context()?;
        let ek = ek::create_ek_object_2(context, algorithm(kind), None).map_err(refused("the endorsement key"))?;
        let result = command(context, ek);
        flush(context, ek.into());
        result
    }

    /// A storage key of the owner hierarchy: the same each time, so it is made anew for each use.
    fn with_storage_key<T>(
        &mut self,
        command: impl FnOnce(&mut Context, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let public = storage_public().map_err(refused("a template"))?;
        let context = self.context()?;
        let key = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Owner, public, None, None, None, None)
            })
            .map_err(refused("a storage key"))?
            .key_handle;
        let result = command(context, key);
        flush(context, key.into());
        result
    }

    /// Makes this host's keys.
    pub(super) fn provision(&mut self, ak_auth: &SecretBytes) -> Result<ChipKeys, TpmError> {
        let eks = self.endorsement_keys()?;
        let parent = eks.first().map(|ek| ek.kind).ok_or(TpmError::NoEndorsementKey)?;
        let auth = Auth::try_from(ak_auth.expose().to_vec()).map_err(refused("an authorisation value"))?;
        let made = self.with_ek(parent, |context, ek| {
            let curve = AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256);
            let scheme = SignatureSchemeAlgorithm::EcDsa;
            ak::create_ak_2(context, ek, HashingAlgorithm::Sha256, curve, scheme, Some(auth), OutOfLockout)
                .map_err(refused("an attestation key"))
        })?;
        Ok(ChipKeys {
            eks,
            parent,
            ak_private: made.out_private.to_vec(),
            ak_public: made.out_public.marshall().map_err(refused("a public area"))?,
            store_key: self.seal_fresh()?,
            tpm_bound: self.seal_fresh()?,
        })
    }

    fn seal_fresh(&mut self) -> Result<Sealed, TpmError> {
        let secret = SecretBytes::new(random_bytes()?);
        self.with_storage_key(|context, key| {
            with_session(context, key, |context| {
                let data = SensitiveData::try_from(secret.expose().to_vec()).map_err(refused("a secret"))?;
                let public = sealed_public().map_err(refused("a template"))?;
                let made = context.create(key, public, None, Some(data), None, None).map_err(refused("sealing"))?;
                let public = made.out_public.marshall().map_err(refused("a public area"))?;
                Ok(Sealed { private: made.out_private.to_vec(), public })
            })
        })
    }

    fn unseal(&mut self, sealed: &Sealed) -> Result<SecretBytes, TpmError> {
        let private = Private::try_from(sealed.private.clone()).map_err(refused("a sealed object"))?;
        let public = Public::unmarshall(&sealed.public).map_err(refused("a sealed object"))?;
        self.with_storage_key(|context, key| {
            with_session(context, key, |context| {
                let object = context.load(key, private, public).map_err(refused("loading a sealed object"))?;
                let data = context.unseal(object.into()).map_err(refused("unsealing"));
                context.clear_sessions();
                flush(context, object.into());
                data.map(|data| SecretBytes::copy_of(data.value()))
            })
        })
    }

    /// Opens what this chip made before.
    pub(super) fn open_keys(&mut self, keys: ChipKeys) -> Result<Opened, TpmError> {
        let opened = Opened {
            store_key: self.unseal(&keys.store_key)?,
            tpm_bound: self.unseal(&keys.tpm_bound)?,
            eks: keys.eks.iter().map(offer).collect(),
        };
        self.keys = Some(keys);
        Ok(opened)
    }

    pub(super) fn use_ak(&mut self, ak_auth: SecretBytes) {
        self.ak_auth = ak_auth;
    }

    /// Answers a request of the host.
    pub(super) fn answer(&mut self, request: &TpmRequest) -> Result<TpmReply, TpmError> {
        match request {
            TpmRequest::ReadPcrs(pcrs) => self.read_pcrs(pcrs).map(TpmReply::Pcrs),
            TpmRequest::Quote { pcrs, qualifying } => self.quote(pcrs, qualifying).map(TpmReply::Quote),
            TpmRequest::Activate(blobs) => self.activate(blobs).map(TpmReply::Secrets),
        }
    }

    fn read_pcrs(&mut self, pcrs: &[u8]) -> Result<BTreeMap<u8, SpecDigest>, TpmError> {
        let context = self.context()?;
        context.clear_sessions();
        let mut values = BTreeMap::new();
        for some in pcrs.chunks(PCRS_AT_ONCE) {
            let (_, _, digests) = context.pcr_read(selection(some)?).map_err(refused("PCR_Read"))?;
            if digests.value().len() != some.len() {
                return Err(TpmError::Command("PCR_Read", "the SHA-256 bank is not active".to_owned()));
            }
            for (number, digest) in some.iter().zip(digests.value()) {
                let value = SpecDigest::from_slice(digest.value());
                let odd = || TpmError::Command("PCR_Read", "a value of another length".to_owned());
                values.insert(*number, value.ok_or_else(odd)?);
            }
        }
        Ok(values)
    }

    fn with_ak<T>(
        &mut self,
        command: impl FnOnce(&mut Context, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let keys = self.keys.clone().ok_or(TpmError::Wedged)?;
        let private = Private::try_from(keys.ak_private).map_err(refused("the attestation key"))?;
        let public = Public::unmarshall(&keys.ak_public).map_err(refused("the attestation key"))?;
        let auth = Auth::try_from(self.ak_auth.expose().to_vec()).map_err(refused("an authorisation value"))?;
        let ak = self.with_ek(keys.parent, |context, ek| {
            ak::load_ak(context, ek, Some(auth), private, public).map_err(refused("loading the attestation key"))
        })?;
        let context = self.context()?;
        let result = command(context, ak);
        context.clear_sessions();
        flush(context, ak.into());
        result
    }

    fn quote(&mut self, pcrs: &[u8], qualifying: &SpecDigest) -> Result<Quote, TpmError> {
        for _ in 0..QUOTE_TRIES {
            let values = self.read_pcrs(pcrs)?;
            let list = selection(pcrs)?;
            let data = qualifying.0.to_vec().try_into().map_err(refused("qualifying data"))?;
            let (attest, signature) = self.with_ak(|context, ak| {
                with_authorisation(context, |context, session| {
                    context
                        .execute_with_session(Some(session), |context| {
                            context.quote(ak, data, SignatureScheme::Null, list)
                        })
                        .map_err(refused("Quote"))
                })
            })?;
            let attest = attest.marshall().map_err(refused("a quote"))?;
            let signature = signature.marshall().map_err(refused("a signature"))?;
            let moved = QuoteContent::parse(&attest).is_ok_and(|quote| quote.pcr_digest != digest_of_pcrs(&values));
            if !moved {
                return Ok(Quote { attest, signature, pcrs: values });
            }
        }
        Err(TpmError::Command("Quote", "the PCRs do not come to rest".to_owned()))
    }

    /// One secret per endorsement key, in the order in which they were shown.
    fn activate(&mut self, blobs: &[CredentialBlob]) -> Result<Vec<SecretBytes>, TpmError> {
        let keys = self.keys.as_ref().ok_or(TpmError::Wedged)?;
        let kinds: Vec<EkKind> = keys.eks.iter().map(|ek| ek.kind).collect();
        if kinds.len() != blobs.len() {
            return Err(TpmError::Command("ActivateCredential", "another number of challenges than keys".to_owned()));
        }
        kinds.into_iter().zip(blobs).map(|(kind, blob)| self.activate_one(kind, blob)).collect()
    }

    fn activate_one(&mut self, kind: EkKind, blob: &CredentialBlob) -> Result<SecretBytes, TpmError> {
        let object = IdObject::try_from(blob.id_object.clone()).map_err(refused("a challenge"))?;
        let secret = EncryptedSecret::try_from(blob.encrypted_seed.clone()).map_err(refused("a challenge"))?;
        self.with_ak(|context, ak| {
            let ek = ek::create_ek_object_2(context, algorithm(kind), None).map_err(refused("the endorsement key"))?;
            let result = with_ek_policy(context, kind, ek, |context, policy| {
                with_authorisation(context, |context, session| {
                    context
                        .execute_with_sessions((Some(session), Some(policy), None), |context| {
                            context.activate_credential(ak, ek, object, secret)
                        })
                        .map_err(refused("ActivateCredential"))
                })
            });
            flush(context, ObjectHandle::from(ek));
            result.map(|digest| SecretBytes::copy_of(digest.value()))
        })
    }
}

fn open_context(name: &str) -> Result<Context, TpmError> {
    let failed = |error: &dyn std::fmt::Display| TpmError::Open(name.to_owned(), error.to_string());
    // `swtpm:path=` is read as localhost:2321 by this library: another machine's TPM, silently.
    if name.starts_with("swtpm:") && !name.contains("port=") {
        return Err(failed(&"a software TPM is named as swtpm:host=HOST,port=PORT"));
    }
    let tcti = TctiNameConf::from_str(name).map_err(|error| failed(&error))?;
    let mut context = Context::new(tcti).map_err(|error| failed(&error))?;
    flush_left_behind(&mut context);
    Ok(context)
}

/// A chip without a resource manager keeps what a killed daemon had loaded, and has three slots. This daemon is its one
/// owner; behind a resource manager the list is this connection's own, so empty.
fn flush_left_behind(context: &mut Context) {
    for first in [FIRST_TRANSIENT, FIRST_LOADED_SESSION] {
        let Ok((CapabilityData::Handles(handles), _)) =
            context.get_capability(CapabilityType::Handles, first, HANDLES_ASKED)
        else {
            continue;
        };
        for handle in handles.into_inner() {
            if let Ok(object) = context.tr_from_tpm_public(handle) {
                flush(context, object);
            }
        }
    }
}

fn is_no_such_handle(error: &tss_esapi::Error) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle))
}

fn offer(ek: &StoredEk) -> EkOffer {
    EkOffer { public: ek.public.clone(), certificate: ek.certificate.clone() }
}

fn random_bytes() -> Result<Vec<u8>, TpmError> {
    let mut bytes = vec![0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(refused("randomness"))?;
    Ok(bytes)
}

fn slot(number: u8) -> Option<PcrSlot> {
    PcrSlot::try_from(1_u32.checked_shl(u32::from(number))?).ok()
}

fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let slots: Vec<PcrSlot> = pcrs.iter().filter_map(|number| slot(*number)).collect();
    PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(refused("a PCR selection"))
}

/// A chip counts each loss of power after the use of an object that is under its protection against guessing, and after a
/// few of them refuses every such object for hours (TPM 2.0 Library, part 1, 19.8). Nobody guesses 32 random bytes; but
/// power is lost.
struct OutOfLockout;

impl KeyCustomization for OutOfLockout {
    fn attributes(&self, attributes: ObjectAttributesBuilder) -> ObjectAttributesBuilder {
        attributes.with_no_da(true)
    }
}

/// TCG TPM v2.0 Provisioning Guidance, 7.5.1: the P-256 storage root key.
fn storage_public() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
        .with_ecc_scheme(EccScheme::Null)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn sealed_public() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(tss_esapi::structures::Digest::default())
        .build()
}
