//! Packets: keys and signatures in bytes (RFC 9580, sections 4.2, 5.2.3 and 5.5.2).

use super::error::OpenPgpError;

/// Tags of packets.
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const PUBLIC_SUBKEY: u8 = 14;

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    tag: u8,
    pub(super) body: &'a [u8],
}

/// An RSA key. Both numbers are big-endian, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
}

/// An RSA signature of a file.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) is_sha512: bool,
    /// The signed bytes after the file.
    pub(super) trailer: Vec<u8>,
    /// The signature itself, without leading zeros.
    pub(super) number: Vec<u8>,
}

/// The packets of a file. Ends after the first broken one.
pub(super) fn split(bytes: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, OpenPgpError>> {
    let mut rest = Some(PacketReader(bytes));
    std::iter::from_fn(move || {
        let mut reader = rest.take().filter(|rest| !rest.0.is_empty())?;
        let packet = reader.packet().ok_or(OpenPgpError::Packet);
        if packet.is_ok() {
            rest = Some(reader);
        }
        Some(packet)
    })
}

impl PublicKey {
    /// The key in a packet; `None` if it has no RSA key of version 4.
    pub(super) fn of(packet: Packet<'_>) -> Result<Option<Self>, OpenPgpError> {
        if !matches!(packet.tag, PUBLIC_KEY | PUBLIC_SUBKEY) {
            return Ok(None);
        }
        Self::read(PacketReader(packet.body)).map_err(|()| OpenPgpError::Packet)
    }

    fn read(mut body: PacketReader<'_>) -> Result<Option<Self>, ()> {
        // Four bytes tell when it was made. Algorithms 1 and 3 are RSA.
        let (version, _made) = (body.byte().ok_or(())?, body.take(4).ok_or(())?);
        let algorithm = body.byte().ok_or(())?;
        if version != 4 || !matches!(algorithm, 1 | 3) {
            return Ok(None);
        }
        Ok(Some(Self {
            modulus: body.number().ok_or(())?.to_vec(),
            exponent: body.number().ok_or(())?.to_vec(),
        }))
    }
}

impl Signature {
    /// The signature in a packet; `None` if it is of another kind.
    pub(super) fn of(packet: Packet<'_>) -> Result<Option<Self>, OpenPgpError> {
        if packet.tag != SIGNATURE {
            return Ok(None);
        }
        let read = Self::read(PacketReader(packet.body), packet.body);
        read.map_err(|()| OpenPgpError::Packet)
    }

    fn read(mut body: PacketReader<'_>, whole: &[u8]) -> Result<Option<Self>, ()> {
        let [version, kind, algorithm, hash] = *body.take(4).ok_or(())? else {
            return Err(());
        };
        let is_sha512 = match hash {
            8 => false,
            10 => true,
            _ => return Ok(None),
        };
        // Kind 0 is a binary document.
        if version != 4 || kind != 0 || !matches!(algorithm, 1 | 3) {
            return Ok(None);
        }
        let hashed = body.counted().ok_or(())?;
        if has_unknown_demand(hashed).ok_or(())? {
            return Ok(None);
        }
        let signed = &whole[..6 + hashed.len()];
        let mut trailer = signed.to_vec();
        trailer.extend_from_slice(&[4, 255]);
        trailer.extend_from_slice(&u32::try_from(signed.len()).map_err(|_| ())?.to_be_bytes());
        let _unhashed = body.counted().ok_or(())?;
        let _start_of_hash = body.take(2).ok_or(())?;
        let number = body.number().ok_or(())?.to_vec();
        match body.0.is_empty() {
            true => Ok(Some(Self {
                is_sha512,
                trailer,
                number,
            })),
            false => Err(()),
        }
    }
}

/// Returns whether a subpacket that must be understood is none of those that are: the time of signing, and the issuer.
fn has_unknown_demand(hashed: &[u8]) -> Option<bool> {
    let mut reader = PacketReader(hashed);
    while !reader.0.is_empty() {
        let len = reader.new_length()?;
        let subpacket = reader.take(len)?;
        let kind = *subpacket.first()?;
        if kind & 0x80 != 0 && !matches!(kind & 0x7f, 2 | 16 | 33) {
            return Some(true);
        }
    }
    Some(false)
}

/// Reads from the front; `None` if there is too little.
#[derive(Clone, Copy)]
struct PacketReader<'a>(&'a [u8]);

impl<'a> PacketReader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// A big-endian number of `bytes` bytes.
    fn integer(&mut self, bytes: usize) -> Option<usize> {
        let digits = self.take(bytes)?.iter();
        Some(digits.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes after their number, of two bytes.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.integer(2)?;
        self.take(len)
    }

    /// A number after its length in bits, without leading zeros.
    fn number(&mut self) -> Option<&'a [u8]> {
        let bits = self.integer(2)?;
        let bytes = self.take(bits.div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(&bytes[zeros..])
    }

    /// A length as in packets of the new format and in subpackets. Partial lengths are refused.
    fn new_length(&mut self) -> Option<usize> {
        match self.byte()? {
            len @ 0..192 => Some(usize::from(len)),
            first @ 192..224 => Some((usize::from(first) - 192) * 256 + self.integer(1)? + 192),
            255 => self.integer(4),
            224..255 => None,
        }
    }

    fn packet(&mut self) -> Option<Packet<'a>> {
        let first = self.byte()?;
        let (tag, len) = match first {
            0xc0.. => (first & 0x3f, self.new_length()?),
            0x80..0xc0 => {
                let bytes = [1, 2, 4].get(usize::from(first & 3))?;
                (first >> 2 & 0x0f, self.integer(*bytes)?)
            }
            _ => return None,
        };
        Some(Packet {
            tag,
            body: self.take(len)?,
        })
    }
}
