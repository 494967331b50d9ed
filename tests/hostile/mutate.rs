//! Makes bodies from bodies: inserts pieces, exchanges values, renames fields, repeats and cuts
//! parts. The same seed makes the same bodies.

/// The pieces that are inserted: structure, values of every type, fields, incomplete texts.
const PIECES: [&str; 62] = [
    "",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "0",
    "-0",
    "1",
    "2",
    "-1",
    "2147483648",
    "9223372036854775808",
    "1.0",
    "2.0",
    "20e-1",
    "2.5",
    "1e99999999999999999999",
    "1e400",
    "1e",
    "\"\"",
    "\"x\"",
    "\"..\"",
    "\"\\ud83d\"",
    "\"\\ud83d\\ude31\"",
    "\"\\u0000\"",
    "\"\\n\"",
    "[]",
    "{}",
    "[\"A\"]",
    "[\"A\",\"B\"]",
    "[1,\"A\"]",
    "\"payment.failed\"",
    "\"reservation.expired\"",
    "\"Notification\"",
    "\"qty\":1,",
    "\"seat_ids\":[\"A\"],",
    "\"id\":\"x\",",
    "\"payload\":{},",
    "\"detail\":{},",
    "\"type\":null,",
    "\"reservation_id\":\"r\",",
    "\"Type\":\"Notification\",",
    "\"Message\":\"{}\",",
    "\"payment.status_updated\"",
    "\"COMPLETED\"",
    "\"PENDING\"",
    "\"status\":\"FAILED\",",
    "\"reservationId\":\"r\",",
    "\"quantity\":2,",
    "\"seatIds\":[\"A\"],",
    "\"specversion\":\"1.0\",",
    "\"data\":{},",
    "\"MessageAttributes\":{\"traceparent\":{\"Value\":\"x\"}},",
    "\u{feff}",
    "é",
    "\u{0}",
];

/// Field names that are exchanged.
const NAMES: [&str; 26] = [
    "\"id\"",
    "\"type\"",
    "\"reservation_id\"",
    "\"event_id\"",
    "\"payload\"",
    "\"detail\"",
    "\"detail-type\"",
    "\"Type\"",
    "\"Message\"",
    "\"qty\"",
    "\"seat_ids\"",
    "\"ts\"",
    "\"trace_id\"",
    "\"user_id\"",
    "\"data\"",
    "\"specversion\"",
    "\"status\"",
    "\"payment_id\"",
    "\"event_type\"",
    "\"eventType\"",
    "\"reservationId\"",
    "\"eventId\"",
    "\"quantity\"",
    "\"seatIds\"",
    "\"userId\"",
    "\"Value\"",
];

/// The largest body that is used as a parent: larger ones add little and are slow.
const PARENT_BYTES_MAX: usize = 1000;

/// Makes bodies from the parents.
pub(crate) struct Breeder {
    parents: Vec<String>,
    random: fastrand::Rng,
}

impl Breeder {
    /// Uses these parents and this seed.
    pub(crate) fn new(parents: impl Iterator<Item = String>, seed: u64) -> Self {
        let parents = parents.filter(|body| body.len() <= PARENT_BYTES_MAX).collect();
        Self { parents, random: fastrand::Rng::with_seed(seed) }
    }

    /// Makes the next body.
    pub(crate) fn next_body(&mut self) -> String {
        let mut body = self.parent();
        for _ in 0..self.random.u8(1..=3) {
            body = match self.random.u8(..8) {
                0 => self.put_piece(&body),
                1 | 2 => self.exchange_value(&body),
                3 => self.rename(&body),
                4 => self.repeat_part(&body),
                5 => self.cut_part(&body),
                6 => self.cross(&body),
                _ => self.wrap(&body),
            };
        }
        body
    }

    fn parent(&mut self) -> String {
        let index = self.random.usize(..self.parents.len());
        self.parents[index].clone()
    }

    fn piece(&mut self) -> &'static str {
        PIECES[self.random.usize(..PIECES.len())]
    }

    /// Returns a random position between two characters.
    fn place(&mut self, body: &str) -> usize {
        let place = self.random.usize(..=body.len());
        (0..=place).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0)
    }

    fn part(&mut self, body: &str) -> (usize, usize) {
        let (a, b) = (self.place(body), self.place(body));
        (a.min(b), a.max(b))
    }

    fn put_piece(&mut self, body: &str) -> String {
        let at = self.place(body);
        format!("{}{}{}", &body[..at], self.piece(), &body[at..])
    }

    /// Replaces the text after a colon, up to the next comma or brace.
    fn exchange_value(&mut self, body: &str) -> String {
        let from = self.place(body);
        let Some(colon) = body[from..].find(':').map(|at| from + at + 1) else {
            return self.put_piece(body);
        };
        let end = body[colon..].find([',', '}']).map_or(body.len(), |at| colon + at);
        format!("{}{}{}", &body[..colon], self.piece(), &body[end..])
    }

    fn rename(&mut self, body: &str) -> String {
        let [old, new] = [(); 2].map(|()| NAMES[self.random.usize(..NAMES.len())]);
        body.replacen(old, new, 1)
    }

    fn repeat_part(&mut self, body: &str) -> String {
        let (from, to) = self.part(body);
        if to - from > 200 {
            return self.put_piece(body);
        }
        format!("{}{}", &body[..to], &body[from..])
    }

    fn cut_part(&mut self, body: &str) -> String {
        let (from, to) = self.part(body);
        if to - from > 20 {
            return self.exchange_value(body);
        }
        format!("{}{}", &body[..from], &body[to..])
    }

    /// Joins the start of one body and the end of another, both at a comma.
    fn cross(&mut self, body: &str) -> String {
        let other = self.parent();
        let (a, b) = (self.place(body), self.place(&other));
        match (body[a..].find(','), other[b..].find(',')) {
            (Some(here), Some(there)) => format!("{}{}", &body[..a + here], &other[b + there..]),
            (Some(_), None) | (None, Some(_)) | (None, None) => self.put_piece(body),
        }
    }

    fn wrap(&mut self, body: &str) -> String {
        match self.random.u8(..4) {
            0 => {
                let text = serde_json::Value::from(body).to_string();
                const TRACE: &str = r#"{"traceparent":{"Type":"String","Value":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}"#;
                format!(
                    r#"{{"Type":"Notification","MessageId":"sns","Message":{text},"MessageAttributes":{TRACE}}}"#
                )
            }
            1 => format!(
                r#"{{"specversion":"1.0","id":"ce","type":"payment.status_updated","data":{body}}}"#
            ),
            2 => format!(r#"{{"id":"eb","detail-type":"payment.approved","detail":{body}}}"#),
            _ => format!(r#"{{"id":"td","type":"payment.failed","trace_id":"x","detail":{body}}}"#),
        }
    }
}
