"""What Evertrue rests on: a bill of materials of all it installs, and an audit of versions, licences and flaws."""
