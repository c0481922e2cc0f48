//! A column of a real PostgreSQL server that is sealed record by record: the program of the book's page, under test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use domicile::{Code, Domicile, Error, Purpose, Result, Scope};
use domicile_record::{OpenedBatch, RecordContext, RecordSealer, RowId, SealedBatch, SealedRecords};
use sqlx::PgPool;

type Failure = Box<dyn std::error::Error>;

/// The column, for one customer. Table and column are part of what every record is bound to.
fn details(domicile: &Domicile, scope: &Scope) -> Result<SealedRecords> {
    Ok(SealedRecords::new(domicile, scope, RecordContext::new(&["calls", "detail"])?))
}

/// Inserts many calls with one statement.
async fn insert(database: &PgPool, sealer: &mut RecordSealer, calls: &[&[u8]]) -> Result<Vec<i64>, Failure> {
    let ids: Vec<i64> = sqlx::query_scalar("SELECT nextval('calls_id') FROM generate_series(1, $1)")
        .bind(i64::try_from(calls.len())?)
        .fetch_all(database)
        .await?;
    // Does nothing, but when the day is over or the key has ended.
    sealer.renew().await?;
    let records: Vec<(RowId<'_>, &[u8])> =
        ids.iter().map(|id| (*id).into()).zip(calls.iter().copied()).collect();
    let mut sealed = SealedBatch::new();
    sealer.seal_batch(&records, &mut sealed)?;
    sqlx::query("INSERT INTO calls (id, detail) SELECT * FROM unnest($1::bigint[], $2::bytea[])")
        .bind(&ids)
        .bind(sealed.iter().collect::<Vec<_>>())
        .execute(database)
        .await?;
    Ok(ids)
}

/// Reads calls back, each with its id, or with the code of why it does not open.
async fn read(
    database: &PgPool,
    column: &SealedRecords,
    ids: &[i64],
) -> Result<Vec<(i64, Result<Vec<u8>, Code>)>, Failure> {
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT id, detail FROM calls WHERE id = ANY($1) ORDER BY id")
            .bind(ids)
            .fetch_all(database)
            .await?;
    // The guard, then the keys of the days from which these rows are, then bytes.
    let opener = column.opener(Purpose::Billing).await?;
    opener.load_for(rows.iter().map(|(_, detail)| &**detail)).await?;
    let cells: Vec<(RowId<'_>, &[u8])> = rows.iter().map(|(id, detail)| ((*id).into(), &**detail)).collect();
    let mut opened = OpenedBatch::new();
    opener.open_batch(&cells, &mut opened);
    let records = opened.iter().map(|record| record.map(<[u8]>::to_vec).map_err(Error::code));
    Ok(rows.iter().map(|(id, _)| *id).zip(records).collect())
}

mod under_test {
    use std::collections::BTreeSet;

    use domicile::Config;
    use domicile::setup::{Stores, init_on};
    use domicile_record::format::SealedRecord;
    use domicile_tests::postgres::{OWNER, Server};
    use domicile_tests::program::repository;
    use domicile_tests::{place, region, scope};
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    const REGION: &str = "eu-central-1";

    /// What stands in the page between such fences.
    fn block(language: &str) -> String {
        let page = std::fs::read_to_string(repository().join("docs/src/sealed-records.md")).unwrap();
        let block = page.split(&format!("```{language}\n")).nth(1).unwrap();
        block.split("```").next().unwrap().to_owned()
    }

    #[test]
    fn the_page_shows_this_program() {
        assert!(include_str!("postgres_column.rs").contains(&block("rust")));
    }

    /// Key store, registry of homes and the table of calls on one server, in two databases.
    struct Column {
        server: Server,
        directory: tempfile::TempDir,
        config: Config,
        database: PgPool,
    }

    impl Column {
        async fn new() -> Self {
            let server = Server::new().await;
            server.store("keys").await;
            server.sql("postgres", "CREATE DATABASE cdr").unwrap();
            server.script("cdr", &block("sql"));
            let directory = tempfile::tempdir().unwrap();
            let mut stores = Stores::default();
            stores.store = Some(server.text(OWNER, "keys"));
            let places = [place(REGION, "EU"), place("us-east-1", "US")];
            let config = init_on(directory.path(), &places, &region(REGION), &stores).await.unwrap();
            let pool = PgPoolOptions::new().max_connections(2);
            let database = pool.connect(&server.text(OWNER, "cdr")).await.unwrap();
            let column = Self { server, directory, config, database };
            let process = column.process().await;
            for tenant in ["acme", "globex"] {
                process.choose_home(&scope(tenant), REGION).await.unwrap();
            }
            process.close().await;
            column
        }

        async fn process(&self) -> Domicile {
            Domicile::from_config(&Config::read(self.config.path()).unwrap()).await.unwrap()
        }
    }

    #[tokio::test]
    async fn calls_go_in_and_come_back_each_to_its_own_row_and_customer() {
        let here = Column::new().await;
        let (writer, reader) = (here.process().await, here.process().await);
        let mut calls: Vec<Vec<u8>> =
            (0..200).map(|call| format!("+1201555{call:04},31").into_bytes()).collect();
        calls.push(Vec::new());
        let borrowed: Vec<&[u8]> = calls.iter().map(|call| &**call).collect();
        let mut sealer = details(&writer, &scope("acme")).unwrap().sealer().await.unwrap();
        let ids = insert(&here.database, &mut sealer, &borrowed).await.unwrap();
        let column = details(&reader, &scope("acme")).unwrap();
        let expected: Vec<_> = ids.iter().copied().zip(calls.iter().cloned().map(Ok)).collect();
        assert_eq!(read(&here.database, &column, &ids).await.unwrap(), expected);

        // Nothing of it is in the database, and all of it is 49 octets longer.
        let dump = here.server.dump("cdr");
        assert!(dump.contains("COPY public.calls") && !dump.contains("1201555"));
        let hexadecimal = domicile_tests::hex(b"+1201555");
        assert!(!dump.contains(&hexadecimal), "nor as octets");
        let longer = here.server.sql("cdr", "SELECT sum(length(detail)) FROM calls").unwrap();
        let octets: usize = calls.iter().map(Vec::len).sum();
        assert_eq!(longer, (octets + calls.len() * SealedRecord::OVERHEAD_BYTES).to_string());

        // Another customer's row, with a key of the same day.
        let mut theirs = details(&writer, &scope("globex")).unwrap().sealer().await.unwrap();
        let other = insert(&here.database, &mut theirs, &[b"globex"]).await.unwrap()[0];
        let (first, second) = (ids[0], ids[1]);
        for (sql, codes) in [
            // Two cells change places.
            (
                format!(
                    "UPDATE calls SET detail = (SELECT detail FROM calls AS other WHERE other.id = \
                     CASE calls.id WHEN {first} THEN {second} ELSE {first} END) WHERE id IN ({first}, {second})"
                ),
                [Code::RecordUnverified, Code::RecordUnverified],
            ),
            // One is another customer's, and one is cut.
            (
                format!(
                    "UPDATE calls SET detail = (SELECT detail FROM calls WHERE id = {other}) WHERE id = {first};
                     UPDATE calls SET detail = substr(detail, 1, 48) WHERE id = {second}"
                ),
                [Code::KeyUnverified, Code::RecordForeign],
            ),
        ] {
            here.server.sql("cdr", &sql).unwrap();
            let answers = read(&here.database, &column, &ids[..3]).await.unwrap();
            let codes: Vec<_> = [(first, Err(codes[0])), (second, Err(codes[1])), expected[2].clone()].into();
            assert_eq!(answers, codes, "and the third opens");
        }
        // Each customer's own scope.
        let globex = details(&reader, &scope("globex")).unwrap();
        let answers = read(&here.database, &globex, &[ids[2], other]).await.unwrap();
        assert_eq!(answers, [(ids[2], Err(Code::KeyUnverified)), (other, Ok(b"globex".to_vec()))]);

        // The same server and keys, seen from the United States.
        let text = std::fs::read_to_string(here.config.path()).unwrap();
        let moved = text.replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
        assert_ne!(text, moved);
        std::fs::write(here.directory.path().join("domicile.toml"), moved).unwrap();
        let abroad = here.process().await;
        let refused = details(&abroad, &scope("acme")).unwrap().opener(Purpose::Billing).await.unwrap_err();
        assert_eq!(refused.code(), Code::HomeRefused);
        for process in [writer, reader, abroad] {
            process.close().await;
        }
        here.database.close().await;
    }

    #[tokio::test]
    async fn of_many_processes_that_begin_a_day_at_once_one_makes_its_key() {
        const PROCESSES: usize = 6;
        let here = Column::new().await;
        let barrier = std::sync::Barrier::new(PROCESSES);
        let seal = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let process = here.process().await;
                let column = details(&process, &scope("acme")).unwrap();
                barrier.wait();
                let (mut sealer, mut cell) = (column.sealer().await.unwrap(), Vec::new());
                sealer.seal(1_i64, b"one", &mut cell).unwrap();
                process.close().await;
                cell
            })
        };
        let cells: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(seal)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let handles: BTreeSet<_> =
            cells.iter().map(|cell| SealedRecord::decode(cell).unwrap().handle).collect();
        assert_eq!(handles.len(), 1, "all of them use the one that won");
        let process = here.process().await;
        let opener = details(&process, &scope("acme")).unwrap().opener(Purpose::Support).await.unwrap();
        for cell in &cells {
            opener.load_for([&**cell]).await.unwrap();
            let mut record = Vec::new();
            opener.open(1_i64, cell, &mut record).unwrap();
            assert_eq!(record, b"one");
        }
        let days = "SELECT count(*) FROM keys WHERE kind = 4";
        assert_eq!(here.server.sql("keys", days).unwrap(), "1");
        process.close().await;
    }
}
