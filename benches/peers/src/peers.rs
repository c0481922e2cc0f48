//! The peers: each writes the records to a sink that counts, and reads from memory what it wrote, as its documentation
//! says that it is used. Those that seal a stream need not tell records apart when they read. All are held against the
//! ideal of one engine.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use aead_stream::{DecryptorBE32, EncryptorBE32};
use aes_gcm::{Aes256Gcm, KeyInit};
use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use domicile::engine::Engine;
use domicile_benches::{Case, Counter, IDEAL_READ, IDEAL_WRITE, Run};
use domicile_samples::Records;
use dryoc::dryocstream::{DryocStream, Header, Tag};
use orion::aead::streaming::{StreamOpener, StreamSealer, StreamTag};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tink_core::StreamingAead;

const KEY: [u8; 32] = [7; 32];
/// Octets of a chunk, where the peer leaves their size to its caller.
const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;

/// All of them.
pub fn all(records: &Records) -> Vec<Case<'_>> {
    vec![
        case("ring, a call a record/write", records, move || {
            Box::new(move || written(ring_write(records, Counter::default())))
        }),
        case("ring, a call a record/read", records, move || {
            let sealed = ring_write(records, Vec::new()).1;
            Box::new(move || (ring_read(records, &sealed), 0))
        }),
        case("aead-stream, 64 KiB/write", records, move || {
            Box::new(move || written(stream_write(records, Counter::default())))
        }),
        case("aead-stream, 64 KiB/read", records, move || {
            let sealed = stream_write(records, Vec::new()).1;
            Box::new(move || (stream_read(&sealed), 0))
        }),
        case("age/write", records, move || {
            let identity = age::x25519::Identity::generate();
            Box::new(move || written(age_write(records, &identity, Counter::default())))
        }),
        case("age/read", records, move || {
            let identity = age::x25519::Identity::generate();
            let sealed = age_write(records, &identity, Vec::new()).1;
            Box::new(move || (age_read(&identity, &sealed), 0))
        }),
        case("orion, 64 KiB/write", records, move || {
            Box::new(move || {
                let mut sum = 0;
                let (seen, _) = orion_write(records, |chunk| sum += black_box(chunk).len() as u64);
                (seen, sum)
            })
        }),
        case("orion, 64 KiB/read", records, move || {
            let mut sealed = Vec::new();
            let (_, nonce) = orion_write(records, |chunk| sealed.push(chunk));
            Box::new(move || (orion_read(&nonce, &sealed), 0))
        }),
        case("dryoc, 64 KiB/write", records, move || {
            Box::new(move || {
                let mut sum = 0;
                let (seen, _) = dryoc_chunks(records, |chunk| sum += black_box(chunk).len() as u64);
                (seen, sum)
            })
        }),
        case("dryoc, 64 KiB/read", records, move || {
            let mut sealed = Vec::new();
            let (_, header) = dryoc_chunks(records, |chunk| sealed.push(chunk));
            Box::new(move || (dryoc_read(&header, &sealed), 0))
        }),
        case("dryoc, a push a record/write", records, move || {
            Box::new(move || {
                let mut sum = 0;
                let (seen, _) = dryoc_records(records, |message| sum += black_box(message).len() as u64);
                (seen, sum)
            })
        }),
        case("dryoc, a push a record/read", records, move || {
            let mut sealed = Vec::new();
            let (_, header) = dryoc_records(records, |message| sealed.push(message));
            Box::new(move || (dryoc_read(&header, &sealed), 0))
        }),
        case("Parquet, AES-GCM/write", records, move || {
            Box::new(move || written(parquet_write(records, Counter::default())))
        }),
        case("Parquet, AES-GCM/read", records, move || {
            let sealed = bytes::Bytes::from(parquet_write(records, Vec::new()).1);
            Box::new(move || (parquet_read(&sealed), 0))
        }),
        case("Tink, HKDF 4 KiB/write", records, move || {
            let tink = tink();
            Box::new(move || {
                let counted = Rc::new(Cell::new(0));
                let seen = tink_write(records, &*tink, Box::new(Counted(counted.clone())));
                (seen, counted.get())
            })
        }),
        case("Tink, HKDF 4 KiB/read", records, move || {
            let (tink, kept) = (tink(), Rc::new(RefCell::new(Vec::new())));
            tink_write(records, &*tink, Box::new(Kept(kept.clone())));
            // Its reader wants to own what it reads from.
            let sealed: &'static [u8] = kept.take().leak();
            Box::new(move || (tink_read(&*tink, sealed), 0))
        }),
        case("envelopers, an envelope a record/write", records, move || {
            Box::new(move || envelopers_write(records))
        }),
    ]
}

/// A case of all records. Readers are told apart by their names; what they read was counted where it was written.
fn case<'a>(name: &str, records: &'a Records, prepare: impl FnOnce() -> Run<'a> + 'a) -> Case<'a> {
    let (total, reads) = (records.as_bytes().len() as u64, name.ends_with("/read"));
    Case {
        name: name.to_owned(),
        engine: None,
        ideal: Some((if reads { IDEAL_READ } else { IDEAL_WRITE }, Engine::Ring)),
        records: records.len(),
        expected: total,
        prepare: Box::new(move || {
            let mut run = prepare();
            Box::new(move || {
                let (seen, produced) = run();
                (seen, if reads { total } else { produced })
            })
        }),
    }
}

fn written((seen, sink): (u64, Counter)) -> (u64, u64) {
    (seen, sink.0)
}

/// Copies records into chunks, as the ideal does, and hands on each that is full, and the last.
fn for_each_chunk(records: &Records, mut full: impl FnMut(&mut Vec<u8>, bool)) -> u64 {
    let (mut chunk, mut seen) = (Vec::with_capacity(CHUNK_BYTES + TAG_BYTES), 0);
    for record in records.iter() {
        if chunk.len() + record.len() > CHUNK_BYTES {
            seen += chunk.len() as u64;
            full(&mut chunk, false);
            chunk.clear();
        }
        chunk.extend_from_slice(record);
    }
    seen += chunk.len() as u64;
    full(&mut chunk, true);
    seen
}

fn counted(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn ring_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap())
}

/// The least that anybody does who seals each record: one call, a counter as nonce, the tag behind the record.
fn ring_write<W: Write>(records: &Records, mut sink: W) -> (u64, W) {
    let (key, mut buffer, mut seen) = (ring_key(), Vec::with_capacity(4096), 0);
    for (number, record) in (0..).zip(records.iter()) {
        buffer.clear();
        buffer.extend_from_slice(record);
        key.seal_in_place_append_tag(counted(number), Aad::empty(), &mut buffer).unwrap();
        sink.write_all(&buffer).unwrap();
        seen += record.len() as u64;
    }
    (seen, sink)
}

fn ring_read(records: &Records, mut sealed: &[u8]) -> u64 {
    let (key, mut buffer, mut seen) = (ring_key(), Vec::with_capacity(4096), 0);
    for (number, record) in (0..).zip(records.iter()) {
        let (this, rest) = sealed.split_at(record.len() + TAG_BYTES);
        sealed = rest;
        buffer.clear();
        buffer.extend_from_slice(this);
        seen +=
            black_box(key.open_in_place(counted(number), Aad::empty(), &mut buffer).unwrap()).len() as u64;
    }
    seen
}

fn stream_write<W: Write>(records: &Records, mut sink: W) -> (u64, W) {
    let mut stream = Some(EncryptorBE32::from_aead(Aes256Gcm::new(&KEY.into()), &[0; 7].into()));
    let seen = for_each_chunk(records, |chunk, last| {
        if last {
            stream.take().unwrap().encrypt_last_in_place(&[], chunk).unwrap();
        } else {
            stream.as_mut().unwrap().encrypt_next_in_place(&[], chunk).unwrap();
        }
        // What is in front of each chunk says how long it is: chunks end with a record.
        sink.write_all(&u32::try_from(chunk.len()).unwrap().to_be_bytes()).unwrap();
        sink.write_all(chunk).unwrap();
    });
    (seen, sink)
}

fn stream_read(mut sealed: &[u8]) -> u64 {
    let mut stream = Some(DecryptorBE32::from_aead(Aes256Gcm::new(&KEY.into()), &[0; 7].into()));
    let (mut chunk, mut seen) = (Vec::with_capacity(CHUNK_BYTES + TAG_BYTES), 0);
    while let Some((length, rest)) = sealed.split_first_chunk::<4>() {
        let (this, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        sealed = rest;
        chunk.clear();
        chunk.extend_from_slice(this);
        if sealed.is_empty() {
            stream.take().unwrap().decrypt_last_in_place(&[], &mut chunk).unwrap();
        } else {
            stream.as_mut().unwrap().decrypt_next_in_place(&[], &mut chunk).unwrap();
        }
        seen += black_box(&chunk).len() as u64;
    }
    seen
}

fn age_write<W: Write>(records: &Records, to: &age::x25519::Identity, sink: W) -> (u64, W) {
    let recipient = to.to_public();
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let (mut stream, mut seen) = (encryptor.wrap_output(sink).unwrap(), 0);
    for record in records.iter() {
        stream.write_all(record).unwrap();
        seen += record.len() as u64;
    }
    (seen, stream.finish().unwrap())
}

fn age_read(identity: &age::x25519::Identity, sealed: &[u8]) -> u64 {
    let opened = age::Decryptor::new_buffered(sealed).unwrap();
    drain(opened.decrypt(std::iter::once(identity as &dyn age::Identity)).unwrap())
}

fn drain(mut reader: impl Read) -> u64 {
    let (mut buffer, mut seen) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return seen,
            length => seen += black_box(&buffer[..length]).len() as u64,
        }
    }
}

fn orion_write(records: &Records, mut keep: impl FnMut(Vec<u8>)) -> (u64, orion::aead::streaming::Nonce) {
    let key = orion::aead::SecretKey::try_from(&KEY[..]).unwrap();
    let (mut sealer, nonce) = StreamSealer::new(&key).unwrap();
    let seen = for_each_chunk(records, |chunk, last| {
        let tag = if last { StreamTag::Finish } else { StreamTag::Message };
        keep(sealer.seal_chunk(chunk, &tag).unwrap());
    });
    (seen, nonce)
}

fn orion_read(nonce: &orion::aead::streaming::Nonce, sealed: &[Vec<u8>]) -> u64 {
    let key = orion::aead::SecretKey::try_from(&KEY[..]).unwrap();
    let mut opener = StreamOpener::new(&key, nonce).unwrap();
    sealed.iter().fold(0, |seen, chunk| seen + black_box(opener.open_chunk(chunk).unwrap().0).len() as u64)
}

fn dryoc_chunks(records: &Records, mut keep: impl FnMut(Vec<u8>)) -> (u64, Header) {
    let (mut stream, header) = DryocStream::init_push(&KEY);
    let seen = for_each_chunk(records, |chunk, last| {
        let tag = if last { Tag::Final } else { Tag::Message };
        keep(stream.push_to_vec(&chunk[..], None, tag).unwrap());
    });
    (seen, header)
}

fn dryoc_records(records: &Records, mut keep: impl FnMut(Vec<u8>)) -> (u64, Header) {
    let ((mut stream, header), mut seen) = (DryocStream::init_push(&KEY), 0);
    for record in records.iter() {
        keep(stream.push_to_vec(record, None, Tag::Message).unwrap());
        seen += record.len() as u64;
    }
    (seen, header)
}

fn dryoc_read(header: &Header, sealed: &[Vec<u8>]) -> u64 {
    let mut stream = DryocStream::init_pull(&KEY, header);
    sealed.iter().fold(0, |seen, message| {
        seen + black_box(stream.pull_to_vec(&message[..], None).unwrap().0).len() as u64
    })
}

/// One column of strings without dictionary, statistics or compression, in pages of 64 KiB.
fn parquet_write<W: Write + Send>(records: &Records, sink: W) -> (u64, W) {
    const BATCH: usize = 8192;
    let schema = Arc::new(Schema::new(vec![Field::new("record", DataType::Utf8, false)]));
    let encryption = FileEncryptionProperties::builder(KEY.to_vec()).build().unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_size_limit(CHUNK_BYTES)
        .with_file_encryption_properties(encryption)
        .build();
    let mut writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties)).unwrap();
    let (mut column, mut seen) = (StringBuilder::with_capacity(BATCH, BATCH * 320), 0);
    let mut write = |column: &mut StringBuilder| {
        let array: ArrayRef = Arc::new(column.finish());
        writer.write(&RecordBatch::try_new(schema.clone(), vec![array]).unwrap()).unwrap();
    };
    for (number, record) in records.iter().enumerate() {
        column.append_value(std::str::from_utf8(record).unwrap());
        seen += record.len() as u64;
        if (number + 1) % BATCH == 0 {
            write(&mut column);
        }
    }
    write(&mut column);
    (seen, writer.into_inner().unwrap())
}

fn parquet_read(sealed: &bytes::Bytes) -> u64 {
    let decryption = FileDecryptionProperties::builder(KEY.to_vec()).build().unwrap();
    let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(sealed.clone(), options).unwrap();
    let mut seen = 0;
    for batch in builder.with_batch_size(8192).build().unwrap() {
        let batch = batch.unwrap();
        let column = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        seen += column.iter().map(|record| black_box(record.unwrap()).len() as u64).sum::<u64>();
    }
    seen
}

fn tink() -> Box<dyn StreamingAead> {
    tink_streaming_aead::init();
    let template = tink_streaming_aead::aes256_gcm_hkdf_4kb_key_template();
    tink_streaming_aead::new(&tink_core::keyset::Handle::new(&template).unwrap()).unwrap()
}

fn tink_write(records: &Records, tink: &dyn StreamingAead, sink: Box<dyn Write>) -> u64 {
    let (mut stream, mut seen) = (tink.new_encrypting_writer(sink, b"").unwrap(), 0);
    for record in records.iter() {
        stream.write_all(record).unwrap();
        seen += record.len() as u64;
    }
    stream.close().unwrap();
    seen
}

fn tink_read(tink: &dyn StreamingAead, sealed: &'static [u8]) -> u64 {
    drain(tink.new_decrypting_reader(Box::new(sealed), b"").unwrap())
}

/// A sink that Tink may own.
struct Counted(Rc<Cell<u64>>);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + black_box(bytes).len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same, of one that keeps what it is given.
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn envelopers_write(records: &Records) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let provider: envelopers::SimpleKeyProvider = envelopers::SimpleKeyProvider::init([7; 16]);
        let cipher: envelopers::EnvelopeCipher<_> = envelopers::EnvelopeCipher::init(provider);
        let (mut seen, mut sum) = (0, 0);
        for record in records.iter() {
            let envelope = cipher.encrypt(record).await.unwrap().to_vec().unwrap();
            sum += black_box(envelope).len() as u64;
            seen += record.len() as u64;
        }
        (seen, sum)
    })
}
