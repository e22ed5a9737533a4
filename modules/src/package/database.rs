//! dpkg's database: what is installed, in which state and version. Pure: reads the text of `/var/lib/dpkg/status`.

/// A package that a book asks for: `name`, `name:architecture`, either with `=version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) architecture: Option<String>,
    pub(super) version: Option<String>,
}

impl Asked {
    /// Reads what was checked to be a package.
    pub(super) fn read(text: &str) -> Asked {
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (text, None),
        };
        let (name, architecture) = match name.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture.to_owned())),
            None => (name, None),
        };
        Asked { name: name.to_owned(), architecture, version }
    }

    /// The name as apt writes it, without the version.
    pub(super) fn full_name(&self) -> String {
        match &self.architecture {
            Some(architecture) => format!("{}:{architecture}", self.name),
            None => self.name.clone(),
        }
    }

    /// As apt takes it.
    pub(super) fn text(&self) -> String {
        match &self.version {
            Some(version) => format!("{}={version}", self.full_name()),
            None => self.full_name(),
        }
    }
}

/// What is known of one package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) architecture: &'a str,
    pub(super) version: &'a str,
    /// `installed`, `half-configured`, `config-files`, …
    pub(super) state: &'a str,
    /// Nothing may change it on its own account.
    pub(super) is_held: bool,
    /// dpkg could not finish, and only installing it again helps.
    pub(super) is_torn: bool,
}

impl Found<'_> {
    /// It is there and works.
    pub(super) fn is_installed(&self) -> bool {
        !self.is_torn && matches!(self.state, "installed" | "triggers-awaited" | "triggers-pending")
    }

    /// An operation on it did not come to its end.
    pub(super) fn is_broken(&self) -> bool {
        self.is_torn || matches!(self.state, "half-installed" | "half-configured" | "unpacked")
    }

    /// Something of it is there besides configuration that was left.
    pub(super) fn is_present(&self) -> bool {
        !matches!(self.state, "not-installed" | "config-files" | "")
    }
}

/// All packages that dpkg knows.
#[derive(Debug, Default)]
pub(super) struct Database<'a> {
    found: Vec<Found<'a>>,
}

impl<'a> Database<'a> {
    /// Reads the database's files: the status, then what dpkg noted since it last wrote it, in order. Lines that no
    /// package has are passed over.
    pub(super) fn parse(texts: &'a [String]) -> Database<'a> {
        let mut found = Vec::new();
        for (nth, text) in texts.iter().enumerate() {
            let first_of_text = found.len();
            for paragraph in text.split("\n\n") {
                let Some(package) = package(paragraph) else { continue };
                let same = |known: &Found<'_>| known.name == package.name && known.architecture == package.architecture;
                if nth > 0 && first_of_text > 0 {
                    found.retain(|known| !same(known));
                }
                found.push(package);
            }
        }
        Database { found }
    }

    /// What is known of a name; with several architectures, what is there before what is not.
    pub(super) fn get(&self, asked: &Asked) -> Option<&Found<'a>> {
        let all = self.found.iter().filter(|found| {
            found.name == asked.name && asked.architecture.as_deref().is_none_or(|wanted| wanted == found.architecture)
        });
        all.max_by_key(|found| (found.is_installed(), found.is_present()))
    }

    /// Whether what is asked for is there, in its version if it has one.
    pub(super) fn holds(&self, asked: &Asked) -> bool {
        self.get(asked).is_some_and(|found| {
            found.is_installed() && asked.version.as_deref().is_none_or(|version| version == found.version)
        })
    }

    /// The packages whose last operation did not come to its end.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Found<'a>> {
        self.found.iter().filter(|found| found.is_broken())
    }

    /// The architecture of this machine: dpkg's own.
    pub(super) fn architecture(&self) -> &'a str {
        self.found.iter().find(|found| found.name == "dpkg").map_or("", |found| found.architecture)
    }
}

fn package(paragraph: &str) -> Option<Found<'_>> {
    let mut package = Found::default();
    for line in paragraph.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match field {
            "Package" => package.name = value,
            "Architecture" => package.architecture = value,
            "Version" => package.version = value,
            "Status" => {
                let mut words = value.split(' ');
                package.is_held = words.next() == Some("hold");
                package.is_torn = words.next() == Some("reinstreq");
                package.state = words.next().unwrap_or_default();
            }
            _ => {}
        }
    }
    (!package.name.is_empty()).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21.22\nDescription: tool\n Status: not this\n\nPackage: web\nStatus: hold ok half-configured\nArchitecture: all\nVersion: 1:2.0~rc1-3\n\nPackage: libz\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\nPackage: libz\nStatus: install ok installed\nArchitecture: i386\nVersion: 1\n";

    #[test]
    fn states_versions_and_architectures_are_read() {
        let texts = [STATUS.to_owned()];
        let database = Database::parse(&texts);
        assert_eq!(database.architecture(), "amd64");
        assert!(database.holds(&Asked::read("dpkg=1.21.22")) && !database.holds(&Asked::read("dpkg=1.21")));
        let web = database.get(&Asked::read("web")).unwrap();
        assert!(web.is_held && web.is_broken() && web.version == "1:2.0~rc1-3" && !database.holds(&Asked::read("web")));
        assert!(database.holds(&Asked::read("libz")) && !database.holds(&Asked::read("libz:amd64")));
        assert_eq!(database.broken().map(|found| found.name).collect::<Vec<_>>(), ["web"]);
        assert!(database.get(&Asked::read("nothing")).is_none());
    }

    #[test]
    fn what_dpkg_noted_after_the_status_counts() {
        let update = "Package: web\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n";
        let texts = [STATUS.to_owned(), update.to_owned()];
        let database = Database::parse(&texts);
        assert!(database.holds(&Asked::read("web=3")) && database.broken().next().is_none());
    }

    #[test]
    fn a_torn_file_is_read_as_far_as_it_goes() {
        for cut in 0..STATUS.len() {
            Database::parse(&[STATUS[..cut].to_owned()]);
        }
        assert!(Database::parse(&["\0\u{feff}:::\n\n: :\n\nPackage:\n".to_owned()]).found.is_empty());
    }
}
