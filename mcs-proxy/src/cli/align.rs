//! Columns of text, as kubectl and ipvsadm align them.

/// Pads every cell to the width of its column; the last cell of a row is left as it is. Columns are two spaces apart.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter(|row| row.len() > column + 1)
            .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()))
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            if column + 1 == row.len() {
                cell.clone()
            } else {
                format!("{cell:<width$}  ", width = widths[column])
            }
        });
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows =
            [vec!["Prot", "VIP", "Service"], vec!["TCP", "10.13.181.116:80", ""], vec!["a long title"]]
                .map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(align(&rows), "Prot  VIP               Service\nTCP   10.13.181.116:80\na long title\n");
    }
}
