//! `table.txt`: rows below headings in brackets; `#` begins a remark.

pub struct Table {
    pub floors: Vec<Row>,
    pub crates: Vec<Row>,
    pub long: Vec<Long>,
}

/// `name: what it uses`
pub struct Row {
    pub name: String,
    pub uses: Vec<String>,
}

/// `at most so many lines | what | why`
pub struct Long {
    pub lines_max: usize,
    /// A file, or a file and a function in it.
    pub what: String,
    pub reason: String,
}

impl Row {
    fn parse(line: &str) -> Row {
        let (name, uses) = line.split_once(':').unwrap_or_else(|| panic!("no colon in: {line}"));
        let uses = uses.split_whitespace().map(str::to_owned).collect();
        Row { name: name.trim().to_owned(), uses }
    }

    pub fn has(&self, name: &str) -> bool {
        self.uses.iter().any(|used| used == name)
    }
}

impl Long {
    fn parse(line: &str) -> Long {
        let mut cells = line.splitn(3, '|').map(str::trim);
        let mut cell = || cells.next().unwrap_or_default().to_owned();
        let lines_max = cell().parse().unwrap_or_else(|_| panic!("no number begins: {line}"));
        Long { lines_max, what: cell(), reason: cell() }
    }
}

impl Table {
    pub fn parse(text: &str) -> Table {
        let mut table = Table { floors: Vec::new(), crates: Vec::new(), long: Vec::new() };
        let mut heading = "";
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            match heading {
                _ if line.is_empty() => {}
                _ if line.starts_with('[') => heading = line,
                "[floors]" => table.floors.push(Row::parse(line)),
                "[crates]" => table.crates.push(Row::parse(line)),
                "[long]" => table.long.push(Long::parse(line)),
                _ => panic!("below no heading that is known: {line}"),
            }
        }
        table
    }
}
