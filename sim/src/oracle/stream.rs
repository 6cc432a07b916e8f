//! One half of a stream as it truly is, to check what its writer and reader are told.

use imux::proto::{Code, ReadError, WriteError};

use crate::net::Time;

/// The truth about one half of a stream, whatever the sessions believe.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    pub written: u64,
    pub read: u64,
    pub finished: bool,
    pub reset: Option<Code>,
    /// What was written before the reset must be read.
    pub reset_in_order: bool,
    pub stopped: Option<Code>,
    pub first_write: Option<Time>,
    pub last_read: Option<Time>,
    pub longest_gap: Time,
}

impl Truth {
    /// The session took `taken` of `offered` bytes.
    pub fn on_write(&mut self, now: Time, offered: u64, taken: u64) -> Result<(), String> {
        if taken == 0 || taken > offered {
            return Err(format!("write of {offered} bytes took {taken}"));
        }
        self.written += taken;
        self.first_write.get_or_insert(now);
        Ok(())
    }

    /// The writer is told that nothing more is taken. `refused`: as a reader, it was told that the
    /// other end is shutting down.
    pub fn on_write_error(&self, error: WriteError, refused: bool) -> Result<(), String> {
        match (error, self.stopped) {
            (WriteError::Stopped(code), Some(true_code)) if code == true_code => Ok(()),
            // Stopped, and forgotten entirely before the writer looked. Likewise if a draining peer
            // refused it.
            (WriteError::Closed, stopped) if stopped.is_some() || refused => Ok(()),
            (WriteError::Stopped(Code::SHUTDOWN), None) => Ok(()),
            _ => Err(format!("writing failed with \"{error}\", stopped is {:?}", self.stopped)),
        }
    }

    /// The reader asked for `max` bytes and got these; `content` is what was written there.
    pub fn on_read(
        &mut self,
        now: Time,
        max: u64,
        data: &[u8],
        is_content: impl FnOnce(u64, &[u8]) -> bool,
    ) -> Result<(), String> {
        let end = self.read + data.len() as u64;
        if data.is_empty() || data.len() as u64 > max {
            return Err(format!("read of {max} bytes gave {}", data.len()));
        }
        if end > self.written {
            return Err(format!("{end} bytes read of {} written", self.written));
        }
        if !is_content(self.read, data) {
            return Err(format!("bytes {}..{end} are not those written", self.read));
        }
        let since = self.last_read.or(self.first_write).unwrap_or(now);
        self.longest_gap = self.longest_gap.max(now.saturating_sub(since));
        self.last_read = Some(now);
        self.read = end;
        Ok(())
    }

    /// The reader is told that this was all.
    pub fn on_end(&self) -> Result<(), String> {
        if self.finished && self.written == self.read {
            Ok(())
        } else {
            Err(format!("end of stream at {}, truth is {self:?}", self.read))
        }
    }

    /// The reader is told that no more will come.
    pub fn on_read_error(&self, error: ReadError) -> Result<(), String> {
        match error {
            ReadError::Reset(Code::SHUTDOWN) | ReadError::Blocked => Ok(()),
            ReadError::Reset(code) if self.reset == Some(code) => {
                if self.reset_in_order && self.read != self.written {
                    return Err(format!("reset at {} of {}", self.read, self.written));
                }
                Ok(())
            }
            ReadError::Reset(code) => Err(format!("reset with {code:?}, truth is {self:?}")),
            ReadError::Closed => Err("the stream was forgotten unread".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &[u8] = b"abcdef";
    const CODE: Code = Code::application(3);

    fn written() -> Truth {
        Truth { written: WRITTEN.len() as u64, ..Truth::default() }
    }

    fn is_content(offset: u64, data: &[u8]) -> bool {
        WRITTEN[offset as usize..].starts_with(data)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut truth = written();
        truth.on_read(0, 4, b"abc", is_content).unwrap();
        truth.on_read(0, 4, b"def", is_content).unwrap();
        assert_eq!(truth.read, 6);
        let lies: [(&str, &[u8]); 6] = [
            ("nothing", b""),
            ("more than asked for", b"abcde"),
            ("something else", b"abd"),
            ("what came before", b"bcd"),
            ("more than was written", b"abcdefg"),
            ("the beginning left out", b"cd"),
        ];
        for (lie, data) in lies {
            let max = if lie == "more than was written" { 9 } else { 4 };
            let told = written().on_read(0, max, data, is_content);
            assert!(told.is_err(), "{lie}: {told:?}");
        }
    }

    #[test]
    fn bytes_come_once() {
        let mut truth = written();
        truth.on_read(0, 6, b"abc", is_content).unwrap();
        truth.on_read(0, 6, b"abc", is_content).unwrap_err();
        truth.on_read(0, 6, b"ef", is_content).unwrap_err();
    }

    #[test]
    fn a_stream_ends_where_its_writer_ended_it() {
        let whole = Truth { read: 6, finished: true, ..written() };
        assert_eq!(whole.on_end(), Ok(()));
        Truth { finished: false, ..whole }.on_end().unwrap_err();
        Truth { read: 5, ..whole }.on_end().unwrap_err();
        Truth { written: 7, ..whole }.on_end().unwrap_err();
    }

    #[test]
    fn a_reader_hears_the_writers_reset() {
        let reset = Truth { reset: Some(CODE), ..written() };
        assert_eq!(reset.on_read_error(ReadError::Reset(CODE)), Ok(()));
        reset.on_read_error(ReadError::Reset(Code::NONE)).unwrap_err();
        reset.on_read_error(ReadError::Closed).unwrap_err();
        let in_order = Truth { reset_in_order: true, ..reset };
        in_order.on_read_error(ReadError::Reset(CODE)).unwrap_err();
        assert_eq!(Truth { read: 6, ..in_order }.on_read_error(ReadError::Reset(CODE)), Ok(()));
        written().on_read_error(ReadError::Reset(CODE)).unwrap_err();
        assert_eq!(written().on_read_error(ReadError::Reset(Code::SHUTDOWN)), Ok(()));
    }

    #[test]
    fn a_writer_hears_the_readers_stop() {
        let stopped = Truth { stopped: Some(CODE), ..written() };
        assert_eq!(stopped.on_write_error(WriteError::Stopped(CODE), false), Ok(()));
        assert_eq!(stopped.on_write_error(WriteError::Closed, false), Ok(()));
        stopped.on_write_error(WriteError::Stopped(Code::NONE), false).unwrap_err();
        written().on_write_error(WriteError::Stopped(CODE), false).unwrap_err();
        written().on_write_error(WriteError::Closed, false).unwrap_err();
        assert_eq!(written().on_write_error(WriteError::Closed, true), Ok(()));
    }

    #[test]
    fn a_write_takes_some_of_what_was_offered() {
        let mut truth = written();
        assert_eq!(truth.on_write(9, 3, 3), Ok(()));
        assert_eq!((truth.written, truth.first_write), (9, Some(9)));
        truth.on_write(9, 3, 0).unwrap_err();
        truth.on_write(9, 3, 4).unwrap_err();
    }

    #[test]
    fn the_longest_gap_is_counted_from_the_first_write() {
        let mut truth = Truth { first_write: Some(100), ..written() };
        truth.on_read(130, 1, b"a", is_content).unwrap();
        truth.on_read(150, 1, b"b", is_content).unwrap();
        assert_eq!(truth.longest_gap, 30);
    }
}
